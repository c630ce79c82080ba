"""A peer in another Python: what it says counts, and where it is missing the reason is given."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import other_python
from harness import OwnTime
from other_python import PEER_PYTHON, PeerError, PeerProcess, torchvision_call, torchvision_problem

# Stands in for torch and torchvision: an NMS that sleeps for as long as it has boxes, in ms.
TORCH = """
__version__ = "9.9"
def set_num_threads(count): assert count == 1
def from_numpy(array): return array
"""
TORCHVISION = """
import time
__version__ = "8.8"
class ops:
    @staticmethod
    def batched_nms(boxes, scores, class_ids, iou):
        assert boxes.shape == (20, 4) and scores.shape == class_ids.shape == (20,) and iou == 0.5
        time.sleep(len(boxes) / 1e3)
"""
ARRAYS = {
    "boxes": np.zeros((20, 4), np.float32),
    "scores": np.zeros(20, np.float32),
    "class_ids": np.zeros(20, np.int64),
    "iou": np.array(0.5),
}


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    other_python.torchvision_problem.cache_clear()
    yield
    other_python.torchvision_problem.cache_clear()


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python that finds the stand-ins."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "torch.py").write_text(TORCH)
    (modules / "torchvision.py").write_text(TORCHVISION)
    program = tmp_path / "python"
    path = f"import sys; sys.path.insert(0, {str(modules)!r})"
    (modules / "start.py").write_text(
        f"{path}\nimport runpy\n"
        "if sys.argv[1] == '-c':\n    exec(sys.argv[2])\n"
        "else:\n    del sys.argv[0]\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {modules}/start.py "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def _not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_python, "optional", lambda module: None)


@pytest.mark.usefixtures("_not_here")
def test_a_call_in_another_python_is_timed_there(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PEER_PYTHON, python)
    assert torchvision_problem() == ""
    ((name, call),) = torchvision_call("ops.batched_nms", **ARRAYS).items()
    assert name == "torchvision.ops.batched_nms"
    assert isinstance(call, PeerProcess)
    assert call.versions == {"torch": "9.9", "torchvision": "8.8"}
    for _ in range(3):
        took = call()
        assert isinstance(took, OwnTime)
        # One call of 20 ms, though two are made.
        assert 0.02 <= took.seconds < 0.039
    call.close()
    with pytest.raises((PeerError, ValueError)):
        call()
    call.close()


@pytest.mark.usefixtures("_not_here")
def test_a_peer_ends_with_its_case(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PEER_PYTHON, python)
    calls = torchvision_call("ops.batched_nms", **ARRAYS)
    (process,) = [call._process for call in calls.values() if isinstance(call, PeerProcess)]
    assert process.poll() is None
    del calls
    assert process.poll() is not None
    assert other_python.VERSIONS["torchvision"] == "8.8"


@pytest.mark.usefixtures("_not_here")
def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(PEER_PYTHON, raising=False)
    assert PEER_PYTHON in torchvision_problem()
    assert torchvision_call("ops.batched_nms", **ARRAYS) == {}
    for program, said in (("/no/such/python", "does not start"), (sys.executable, "cannot import")):
        if said == "cannot import" and importlib.util.find_spec("torchvision"):
            continue
        other_python.torchvision_problem.cache_clear()
        monkeypatch.setenv(PEER_PYTHON, program)
        assert said in torchvision_problem()
        with pytest.raises(PeerError):
            PeerProcess(program, "ops.batched_nms", ARRAYS)
    capfd.readouterr()


@pytest.mark.skipif(PEER_PYTHON not in os.environ, reason=f"{PEER_PYTHON} is not set")
@pytest.mark.usefixtures("_not_here")
def test_the_real_torchvision_answers() -> None:
    assert torchvision_problem() == ""
    calls = torchvision_call("ops.batched_nms", **ARRAYS)
    calls |= torchvision_call(
        "transforms.v2",
        image=np.zeros((30, 40, 3), np.uint8),
        mean=np.full(3, 100.0),
        std=np.full(3, 50.0),
    )
    assert len(calls) == 2
    for call in calls.values():
        took = call()
        assert isinstance(took, OwnTime)
        assert 0 < took.seconds < 5
