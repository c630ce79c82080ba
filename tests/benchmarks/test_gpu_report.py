"""``benchmarks/gpu.sh`` and its page, with a Python that answers what a GPU machine would."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from visionrt.device import gpu_problem

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
sys.path.append(str(ROOT / "benchmarks"))

import gpu_report  # noqa: E402 - a program, not a package

DOCTOR = {
    "gpu": {
        "details": {
            "name": "NVIDIA RTX A4000",
            "compute_capability": "86",
            "memory_bytes": 16 << 30,
            "driver_version": "13.0",
        }
    }
}
BENCH = {
    "device": "cuda:0",
    "backend": "tensorrt_rtx",
    "latency_ms": {"median": 1.25, "p99": 2.5},
    "stages_ms": {"preprocess": 0.0, "inference": 1.125, "postprocess": 0.0625},
    "images_per_second": 800.4,
}
BUILD = {
    "precision": "fp16",
    "targets": [
        {"backend": "tensorrt_rtx", "plan_bytes": 9_700_000, "build_seconds": 4.25},
        {"backend": "cpu"},
    ],
    "verification": {"agreement": 0.977},
}
TIMES = {
    "gpu": "NVIDIA RTX A4000",
    "bytes_per_s": 448e9,
    "operations": [
        {
            "name": "decode",
            "bytes": 2_830_000,
            "launches": 2,
            "floor_us": 6.3,
            "limit_us": 83.2,
            "measured_us": 12.5,
        },
        {
            "name": "NMS",
            "bytes": 30_000,
            "launches": 4,
            "floor_us": 0.1,
            "limit_us": 120.7,
            "measured_us": 130.0,
        },
    ],
}
JUNIT = """<testsuites><testsuite>
<testcase classname="gpu" name="good"/>
<testcase classname="gpu" name="bad"><failure message="off"/></testcase>
<testcase classname="gpu" name="absent"><skipped message="no tensorrt"/></testcase>
</testsuite></testsuites>"""


def answering_python(folder: Path) -> Path:
    """A program in Python's place: answers every step, fails two, and writes down the rest."""
    answers = {"doctor": DOCTOR, "bench": BENCH, "build": BUILD, "times": TIMES}
    program = folder / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        + textwrap.dedent(f"""
            import json, os, pathlib, sys
            words = sys.argv[1:]
            answers = json.loads({json.dumps(json.dumps(answers))})
            with open({str(folder / "calls")!r}, "a") as calls:
                calls.write(json.dumps(words) + "\\n")
            if words[0] == "benchmarks/gpu_report.py":
                if words[1] != "capability":
                    os.execv({sys.executable!r}, [{sys.executable!r}, *words])
                print(86)
            elif words[:3] == ["-m", "visionrt", "doctor"]:
                print(json.dumps(answers["doctor"]))
            elif words[:3] == ["-m", "visionrt", "bench"]:
                print(json.dumps(answers["bench"]))
            elif words[:3] == ["-m", "trtconvert", "build"]:
                if "fp32" in words and "detect" in words:
                    sys.exit("expected a model that builds, got none")
                print(json.dumps(answers["build"]))
            elif words[0] == "benchmarks/gpu_kernels.py":
                print(json.dumps(answers["times"]))
            elif words[:2] == ["-m", "pytest"]:
                (path,) = [w.partition("=")[2] for w in words if w.startswith("--junitxml")]
                pathlib.Path(path).write_text({JUNIT!r})
                if "--require-gpu" in words:
                    print("1 failed, 1 passed, 1 skipped")
                    sys.exit(1)
            else:
                assert words == ["tools/dev/kernels.py", "--json"], words
                print("{{}}")
            """),
        encoding="utf-8",
    )
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("not run: TensorRT-RTX is not installed, so nothing is to be built")
    folder = tmp_path_factory.mktemp("gpu")
    done = _run(answering_python(folder), folder / "results")
    return {
        "done": done,
        "calls": [json.loads(line) for line in (folder / "calls").read_text().splitlines()],
        "report": json.loads((folder / "results" / "report.json").read_text(encoding="utf-8")),
        "page": (folder / "results" / "report.md").read_text(encoding="utf-8"),
    }


def _run(python: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), str(folder)],
        env={**os.environ, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_parses() -> None:
    assert os.access(SCRIPT, os.X_OK)
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.skipif(not gpu_problem(0), reason="a GPU is here")
def test_without_a_gpu_it_stops_at_once(tmp_path: Path) -> None:
    done = _run(sys.executable, tmp_path / "results")
    assert done.returncode == 6
    assert "expected" in done.stderr
    assert gpu_problem(0) in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "results").exists()


def test_every_step_runs_and_a_failure_stops_none(results: dict[str, Any]) -> None:
    assert results["done"].returncode == 1
    names = [step["name"] for step in results["report"]["steps"]]
    assert names[:5] == ["doctor", "budgets", "kernel-times", "tests-gpu", "tests-rest"]
    engines = [n for n in names if n.startswith("build-rtx-")]
    assert len(engines) == 4
    # What was not built is not timed.
    assert len([n for n in names if n.startswith("bench-rtx-")]) == 2 * (len(engines) - 1)
    failed = {step["name"]: step for step in results["report"]["steps"] if step["exit"]}
    assert [n for n in failed if not n.startswith("build-tensorrt")] == [
        "tests-gpu",
        "build-rtx-detector-fp32",
    ]
    assert failed["tests-gpu"]["last_lines"] == ["1 failed, 1 passed, 1 skipped"]


def test_the_flags_that_the_script_gives_exist(results: dict[str, Any]) -> None:
    given: dict[tuple[str, ...], set[str]] = {}
    for words in results["calls"]:
        if words[0] == "-m" and words[1] != "pytest":
            flags = {word for word in words[3:] if word.startswith("--")}
            given.setdefault(tuple(words[:3]), set()).update(flags)
    assert len(given) == 3
    for command, flags in given.items():
        shown = subprocess.run(
            [sys.executable, *command, "--help"], capture_output=True, text=True, check=True
        )
        assert {flag for flag in flags if flag not in shown.stdout} == set(), command


def test_the_page_says_what_was_measured(results: dict[str, Any]) -> None:
    page = results["page"]
    for line in (
        "SM86, 16.0 GiB, driver for CUDA 13.0;",
        "- tests-gpu failed with 1:",
        "gpu: 1 passed, 1 failed, 1 did not run",
        "- failed: `gpu::bad`",
        "- did not run: `gpu::absent: no tensorrt`",
        "expected a model that builds, got none",
        "| rtx-classifier-fp16 | cuda:0 (tensorrt_rtx) | 1.250 | 2.500 |  | 0.000 | 1.125 | 0.062 "
        "| 800 |",
        "| decode | 2.83 | 12.5 | 6.3 | 83.2 |  |",
        "| NMS | 0.03 | 130.0 | 0.1 | 120.7 | over |",
        "| rtx-classifier-fp16 | fp16 | 9.7 | 4.2 | 0.977 |",
    ):
        assert line in page, line


def test_a_page_of_nothing_but_failures() -> None:
    step = {"name": "doctor", "exit": 6, "seconds": 0, "last_lines": ["no driver"]}
    report = {
        "time": "2026-01-01T00:00:00+00:00",
        "machine": {"processor": "x", "cores": 2},
        "steps": [step],
        "doctor": None,
        "kernel_times": None,
        "tests": {},
        "builds": {},
        "benches": {},
    }
    page = gpu_report.page(report)
    assert "**0 of 1 steps passed.**" in page
    assert "no driver" in page
