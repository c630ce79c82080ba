"""Runs the benchmarks and prints one table: ``make bench``; ``run.py --full`` takes longer."""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import bench_conversion
import bench_detections
import bench_end_to_end
import bench_engine
import bench_files
import bench_preprocess
from harness import Measured, measure, optional
from lines import Line, lines_of, save, shortfalls, table
from other_python import PEER_PYTHON, VERSIONS, torchvision_problem

MODULES = {
    "preprocess": bench_preprocess,
    "detections": bench_detections,
    "end_to_end": bench_end_to_end,
    "files": bench_files,
    "engine": bench_engine,
    "conversion": bench_conversion,
}
IMAGES, ALL_IMAGES = 2_000, 10_000
MOST_GROWN_MIB = 5.0
FULL_ROUNDS, FULL_RUNS = 30, 3


def grown_kib(images: int) -> int | None:
    """What a process grows by over so many images; None where it cannot be told.

    Raises:
        RuntimeError: the process failed; with what it said.
    """
    if sys.platform != "linux":
        return None
    script = Path(__file__).with_name("memory.py")
    command = [sys.executable, str(script), str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script.name} ended with {done.returncode}: {done.stderr[-500:]}")
    return int(done.stdout)


def memory_line(images: int, grown: list[int]) -> Line:
    """What a process grew by in each run."""
    figures = tuple(kib / 1024 for kib in grown)
    spread = (min(figures), max(figures))
    name = f"memory of a process that predicts, image 100 to {images}"
    return Line(name, "image 100", "MiB", figures, spread, MOST_GROWN_MIB, is_least=False)


def run_stage(stage: str, rounds: int | None, least: int) -> list[Measured]:
    """Every case of a stage, made anew: settings are tuned again, engines loaded again.

    Args:
        stage: of ``MODULES``.
        rounds: of each case; None: what the case says, but ``least`` at the least.
        least: see ``rounds``.
    """
    return [
        measure(dataclasses.replace(case, rounds=rounds or max(case.rounds, least)))
        for case in MODULES[stage].cases()
    ]


def run_apart(stage: str, rounds: int | None, least: int) -> list[Measured]:
    """The same in a process of its own.

    Where another stage has allocated and freed large blocks, the C library keeps their pages, and a
    peer that makes arrays took half its time: a figure would hang on what was measured before.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        results, versions = pool.submit(_stage_and_versions, stage, rounds, least).result()
    VERSIONS.update(versions)
    return results


def _stage_and_versions(
    stage: str, rounds: int | None, least: int
) -> tuple[list[Measured], dict[str, str]]:
    return run_stage(stage, rounds, least), dict(VERSIONS)


def left_out() -> dict[str, str]:
    """Peers that are not measured here, and why."""
    out = {}
    if problem := torchvision_problem():
        out["torchvision"] = problem
    if optional("openvino") is None:
        out["openvino"] = "it is not installed"
    return out


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument(
        "--full",
        action="store_true",
        help=f"{FULL_RUNS} runs of {FULL_ROUNDS} rounds or more, {ALL_IMAGES:,} images",
    )
    parser.add_argument("--runs", type=int, metavar="N", help="so many runs instead")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of each case")
    parser.add_argument("--images", type=int, metavar="N", help="so many for the memory, above 100")
    parser.add_argument("--only", nargs="+", choices=MODULES, default=[*MODULES], metavar="STAGE")
    parser.add_argument(
        "--peer-python",
        metavar="PYTHON",
        help=f"a Python that has torchvision, where this one has not (or ${PEER_PYTHON})",
    )
    args = parser.parse_args(arguments)
    for name, least in (("runs", 1), ("rounds", 1), ("images", 101)):
        if (value := getattr(args, name)) is not None and value < least:
            parser.error(f"--{name}: {least} or more, got {value}")
    return args


def main() -> None:
    """Measure every case; print the table, and why what is short of its target is."""
    args = parsed()
    if args.peer_python:
        os.environ[PEER_PYTHON] = args.peer_python
    runs_wanted = args.runs or (FULL_RUNS if args.full else 1)
    images = args.images or (ALL_IMAGES if args.full else IMAGES)
    runs: list[list[Measured]] = []
    grown: list[int] = []
    for number in range(runs_wanted):
        if runs_wanted > 1:
            print(f"run {number + 1} of {runs_wanted}", file=sys.stderr, flush=True)
        least = FULL_ROUNDS if args.full else 0
        runs.append([m for stage in args.only for m in run_apart(stage, args.rounds, least)])
        if "end_to_end" in args.only and (kib := grown_kib(images)) is not None:
            grown.append(kib)
    lines = lines_of(runs) + ([memory_line(images, grown)] if grown else [])
    print(table(lines))
    print()
    print(shortfalls(lines))
    skipped = left_out()
    for peer, reason in skipped.items():
        print(f"{peer} is left out: {reason}")
    if args.json:
        memory: dict[str, Any] = {"images": images, "grown_kib_after_100": grown} if grown else {}
        save(runs, lines, args.json, memory=memory, left_out=skipped, peers=VERSIONS)


if __name__ == "__main__":
    main()
