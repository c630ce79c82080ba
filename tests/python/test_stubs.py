"""The .pyi files say what the compiled modules hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_core_stub_is_the_generated_one(tmp_path: Path) -> None:
    pytest.importorskip("pybind11_stubgen")
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools/dev/stubs.py"), "--output", str(tmp_path / "_core.pyi")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    fresh = (tmp_path / "_core.pyi").read_text()
    stored = (ROOT / "python/visionrt/_core.pyi").read_text()
    assert fresh == stored, "run: make stubs"


def test_stubs_match_the_modules_at_run_time() -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy.stubtest", "visionrt._core", "visionrt._fastpath"]
    command += ["--ignore-positional-only", "--mypy-config-file", str(ROOT / "pyproject.toml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
