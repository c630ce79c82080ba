"""The wheel holds both packages with their stubs and data, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_wheel_contents(tmp_path: Path) -> None:
    pytest.importorskip("scikit_build_core")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    command += [str(ROOT), "-w", str(tmp_path), "-Ccmake.define.VISIONRT_CUDA=OFF"]
    command += [f"-Cbuild-dir={tmp_path / 'build'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"visionrt", "trtconvert", next(t for t in tops if t.endswith(".dist-info"))}
    for wanted in (
        "visionrt/__init__.py",
        "visionrt/_core.pyi",
        "visionrt/_fastpath.pyi",
        "visionrt/py.typed",
        "visionrt/label_sets/imagenet1000.txt",
        "trtconvert/py.typed",
        "trtconvert/convert.py",
    ):
        assert wanted in names
    compiled = [n for n in names if n.endswith(".so")]
    assert sorted(Path(n).name.split(".")[0] for n in compiled) == ["_core", "_fastpath"]
    assert not [n for n in names if n.endswith((".pyx", ".cpp", ".h", ".cu"))]
