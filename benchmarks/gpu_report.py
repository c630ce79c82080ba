"""What ``benchmarks/gpu.sh`` asks of Python, and the page it writes.

gpu_report.py capability          # of GPU 0, like 86; exits 6 and says what is missing without
gpu_report.py targets 86          # the targets that can be built and run here, one a line
gpu_report.py write FOLDER        # report.json and report.md from the outputs in FOLDER
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness import machine
from trtconvert.targets.rtx import SUPPORTED_SMS
from visionrt.atomic import write_bytes
from visionrt.device import gpu_info
from visionrt.errors import MissingDependencyError

_STAGES = ("decode", "preprocess", "inference", "postprocess")


def targets(capability: str) -> list[str]:
    """Targets of the installed libraries for a compute capability."""
    out = []
    if importlib.util.find_spec("tensorrt_rtx") is not None and capability in SUPPORTED_SMS:
        out.append(f"rtx:sm{capability}")
    if importlib.util.find_spec("tensorrt") is not None:
        out.append("tensorrt")
    return out


def collect(folder: Path) -> dict[str, Any]:
    """One object of everything that the steps in a folder wrote; what failed has no results."""
    steps = []
    for line in (folder / "steps.tsv").read_text(encoding="utf-8").splitlines():
        name, status, seconds = line.split("\t")
        step: dict[str, Any] = {"name": name, "exit": int(status), "seconds": int(seconds)}
        if step["exit"]:
            log = folder / f"{name}.log"
            text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
            if name.startswith("tests-"):  # pytest reports on standard output
                text += (folder / f"{name}.out").read_text(encoding="utf-8", errors="replace")
            step["last_lines"] = text.strip().splitlines()[-5:]
        steps.append(step)
    passed = {step["name"] for step in steps if not step["exit"]}
    benches = [name for name in sorted(passed) if name.startswith("bench-")]
    builds = [name for name in sorted(passed) if name.startswith("build-")]
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "steps": steps,
        "doctor": _output(folder, "doctor") if "doctor" in passed else None,
        "kernel_budgets": _output(folder, "budgets") if "budgets" in passed else None,
        "kernel_times": _output(folder, "kernel-times") if "kernel-times" in passed else None,
        "tests": {
            path.stem.removeprefix("tests-"): _tests(path)
            for path in sorted(folder.glob("tests-*.xml"))
        },
        "builds": {name.removeprefix("build-"): _output(folder, name) for name in builds},
        "benches": {name.removeprefix("bench-"): _output(folder, name) for name in benches},
    }


def _output(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.out").read_text(encoding="utf-8"))


def _tests(path: Path) -> dict[str, Any]:
    """Counts of a JUnit file, and what did not pass by name."""
    out: dict[str, Any] = {"passed": 0, "failed": [], "skipped": []}
    # Written by pytest beside this file, not by strangers.
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            out["failed"].append(name)
        elif (skip := case.find("skipped")) is not None:
            out["skipped"].append(f"{name}: {skip.get('message', '')}")
        else:
            out["passed"] += 1
    return out


def page(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: dict[str, Any]) -> Iterator[str]:
    failed = [step for step in report["steps"] if step["exit"]]
    gpu = (report["doctor"] or {}).get("gpu", {}).get("details", {})
    yield f"# {gpu.get('name', 'A GPU')}, {report['time']}"
    yield ""
    if gpu:
        memory = gpu["memory_bytes"] / 2**30
        yield (
            f"SM{gpu['compute_capability']}, {memory:.1f} GiB, driver for CUDA "
            f"{gpu['driver_version']}; {report['machine']['processor']}, "
            f"{report['machine']['cores']} cores."
        )
        yield ""
    total = len(report["steps"])
    yield f"**{total - len(failed)} of {total} steps passed.**"
    for step in failed:
        yield f"- {step['name']} failed with {step['exit']}:"
        yield from _quoted(step["last_lines"])
    yield from _tests_section(report["tests"])
    yield from _bench_section(report["benches"])
    yield from _kernel_section(report["kernel_times"])
    yield from _build_section(report["builds"])
    yield from ("", "## Steps", "")
    yield from _table(
        ("step", "exit", "seconds"),
        [(s["name"], str(s["exit"]), str(s["seconds"])) for s in report["steps"]],
    )


def _quoted(lines: Sequence[str]) -> Iterator[str]:
    yield from ("", "  ```", *(f"  {line}" for line in lines), "  ```", "")


def _tests_section(tests: dict[str, Any]) -> Iterator[str]:
    if not tests:
        return
    yield from ("", "## Tests", "")
    for name, counts in tests.items():
        failed, skipped = counts["failed"], counts["skipped"]
        yield (
            f"{name}: {counts['passed']} passed, {len(failed)} failed, {len(skipped)} did not run"
        )
        yield from (f"- failed: `{test}`" for test in failed)
        yield from (f"- did not run: `{test}`" for test in skipped)
        yield ""


def _bench_section(benches: dict[str, Any]) -> Iterator[str]:
    if not benches:
        return
    yield from ("", "## Frames", "", "Milliseconds per call; stages are medians.")
    yield from ("Frames that stay on the GPU are one piece of work, shown as inference.", "")
    rows = []
    for name, bench in benches.items():
        latency = bench["latency_ms"]
        stages = (bench["stages_ms"].get(stage) for stage in _STAGES)
        rows.append(
            (
                name,
                f"{bench['device']} ({bench['backend']})",
                *(f"{latency[key]:.3f}" for key in ("median", "p99")),
                *("" if value is None else f"{value:.3f}" for value in stages),
                f"{bench['images_per_second']:.0f}",
            )
        )
    yield from _table(("engine", "on", "median", "p99", *_STAGES, "images/s"), rows)


def _kernel_section(times: dict[str, Any] | None) -> Iterator[str]:
    if times is None:
        return
    yield from ("", "## Kernels", "")
    yield (
        f"Microseconds; the floor is the bytes at {times['bytes_per_s'] / 1e9:.0f} GB/s. "
        "Small work is bound by launches, NMS by its steps."
    )
    yield ""
    rows = [
        (
            operation["name"],
            f"{operation['bytes'] / 1e6:.2f}",
            *(f"{operation[key]:.1f}" for key in ("measured_us", "floor_us", "limit_us")),
            "over" if operation["measured_us"] > operation["limit_us"] else "",
        )
        for operation in times["operations"]
    ]
    yield from _table(("operation", "MB", "measured", "floor", "limit", ""), rows)


def _build_section(builds: dict[str, Any]) -> Iterator[str]:
    if not builds:
        return
    yield from ("", "## Engines", "")
    rows = []
    for name, build in builds.items():
        plans = [t for t in build["targets"] if t["backend"] != "cpu"]
        size = sum(t["plan_bytes"] for t in plans) / 1e6
        seconds = sum(t["build_seconds"] for t in plans)
        agreement = (build.get("verification") or {}).get("agreement")
        shown = "" if agreement is None else f"{agreement:.3f}"
        rows.append((name, build["precision"], f"{size:.1f}", f"{seconds:.1f}", shown))
    yield from _table(("engine", "precision", "plan MB", "build s", "agreement on the CPU"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="The page of benchmarks/gpu.sh.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("capability")
    commands.add_parser("targets").add_argument("capability")
    commands.add_parser("write").add_argument("folder", type=Path)
    args = parser.parse_args(arguments)
    if args.command == "capability":
        try:
            print(gpu_info(0).compute_capability)
        except MissingDependencyError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
    elif args.command == "targets":
        print("\n".join(targets(args.capability)))
    else:
        report = collect(args.folder)
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        write_bytes(args.folder / "report.json", text.encode())
        write_bytes(args.folder / "report.md", page(report).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
