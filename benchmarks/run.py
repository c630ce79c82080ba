"""Runs the benchmarks and prints one table: ``make bench``; ``run.py --full`` takes longer."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
from pathlib import Path

import bench_conversion
import bench_detections
import bench_end_to_end
import bench_engine
import bench_files
import bench_preprocess
from harness import measure, optional, save, table

MODULES = {
    "preprocess": bench_preprocess,
    "detections": bench_detections,
    "end_to_end": bench_end_to_end,
    "files": bench_files,
    "engine": bench_engine,
    "conversion": bench_conversion,
}
IMAGES, ALL_IMAGES = 2_000, 10_000
FULL_ROUNDS = 30


def grown_kib(images: int) -> int | None:
    """What a process grows by over so many images; None where it cannot be told."""
    if sys.platform != "linux":
        return None
    script = Path(__file__).with_name("memory.py")
    command = [sys.executable, str(script), str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def main() -> None:
    """Measure every case; print the table."""
    parser = argparse.ArgumentParser(description="Run the benchmarks.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--full", action="store_true", help="30 rounds of each, 10,000 images")
    parser.add_argument("--only", nargs="+", choices=MODULES, default=[*MODULES], metavar="STAGE")
    args = parser.parse_args()
    results = []
    for name in args.only:
        for case in MODULES[name].cases():
            rounds = max(case.rounds, FULL_ROUNDS) if args.full else case.rounds
            results.append(measure(dataclasses.replace(case, rounds=rounds)))
    print(table(results))
    extra = {}
    if "end_to_end" in args.only:
        images = ALL_IMAGES if args.full else IMAGES
        grown = grown_kib(images)
        extra = {"images": images, "grown_kib_after_100": grown}
        if grown is not None:
            print(f"memory: {grown / 1024:+.1f} MiB from image 100 to {images} (at most +5)")
    for peer in ("torchvision", "openvino"):
        if optional(peer) is None:
            print(f"{peer} is not installed: its lines are left out")
    if args.json:
        save(results, args.json, extra)


if __name__ == "__main__":
    main()
