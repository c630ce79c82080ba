"""The GPU that the tests of this folder run on, and the libraries that build plans for it."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trtconvert.targets.base import Target
from trtconvert.targets.rtx import SUPPORTED_SMS, RtxTarget
from trtconvert.targets.tensorrt import TensorRTTarget
from visionrt import device

# What the test files import, besides their own folder: the checks of the emulated GPU.
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(TESTS / "emulation"),
    str(TESTS / "emulation" / "fake_cuda"),
    str(TESTS / "python"),
    str(TESTS.parent / "benchmarks"),
]


@pytest.fixture(autouse=True)
def _alone_on_the_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Workers of pytest-xdist take turns: some checks fill the memory, others measure time."""
    # Each worker has a folder of its own in the run's.
    with (tmp_path_factory.getbasetemp().parent / "gpu.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def gpu() -> device.Device:
    return device.open_device(0)


@pytest.fixture(scope="module", params=["rtx", "tensorrt"])
def target(request: pytest.FixtureRequest, gpu: device.Device) -> Target:
    """Every library that is here and builds for this GPU."""
    sm = gpu.info.compute_capability
    if request.param == "tensorrt":
        pytest.importorskip("tensorrt", reason="not run: full TensorRT is not installed")
        return TensorRTTarget()
    if sm not in SUPPORTED_SMS:
        pytest.skip(f"not run: TensorRT-RTX does not build for SM{sm}")
    return RtxTarget((sm,))
