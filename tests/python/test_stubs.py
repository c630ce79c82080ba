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


# What pybind11 itself adds: its metaclass, the signature of a class without a constructor, and a
# module without __all__.
PYBIND11 = """
visionrt._core.Geometry
visionrt._core.Geometry.__init__
visionrt._core.Graph
visionrt._core.GraphRecording
visionrt._core.GraphRecording.__init__
visionrt._core.PreprocessPlan
visionrt._core.__all__
"""


def test_stubs_match_the_modules_at_run_time(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    allowed = tmp_path / "allowed.txt"
    allowed.write_text(PYBIND11)
    command = [sys.executable, "-m", "mypy.stubtest", "visionrt._core", "visionrt._fastpath"]
    command += ["--allowlist", str(allowed)]
    command += ["--ignore-positional-only", "--mypy-config-file", str(ROOT / "pyproject.toml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
