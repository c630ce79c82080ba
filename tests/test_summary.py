"""The closing summary of a test run names what this machine could not check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/emulation/test_gpu_faults.py::test_eight_threads_over_two_lanes",
    "tests/emulation/test_gpu_dry_run.py::test_a_bad_address_on_the_fake_gpu",
)


@pytest.mark.parametrize("workers", [0, 2])
def test_emulated_checks_that_did_not_run_are_named(workers: int) -> None:
    arguments = ["-n", str(workers)] if workers else ["-p", "no:xdist"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, *TESTS],
        cwd=ROOT,
        env={**os.environ, "VISIONRT_NO_PYCUDA": "no compiler, for a test"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.partition("checks that need a GPU")[2]
    assert "2 on the emulated GPU did not run" in summary
    for name in TESTS:
        assert f"  {name}: the fake GPU cannot be built" in summary
    assert "no compiler, for a test" in summary
