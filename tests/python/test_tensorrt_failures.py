"""What goes wrong with a plan, an engine or the library is one clear error, and leaks nothing."""

from __future__ import annotations

import gc
import json
import struct
from collections import Counter
from typing import Any
from unittest import mock

import numpy as np
import pycuda_double as cuda
import pytest
import tensorrt_double as double
import tensorrt_rtx as real
from tensorrt_engines import FIXED, NONZERO, nothing_is_left, opened, rtx_plan, runs

from visionrt import device
from visionrt.backends import tensorrt as backend_module
from visionrt.errors import EngineFileError, MissingDependencyError, UsageError
from visionrt.manifest import PlanInfo


def test_a_run_that_fails_quotes_the_library(live: Counter[str]) -> None:
    spec = double.EngineSpec(FIXED.tensors, FIXED.compute, fails_to_run=True)
    backend = opened(spec)
    with pytest.raises(MissingDependencyError, match="enqueue: illegal memory access"):
        backend.run({"x": np.ones((2, 3), np.float32)})
    backend.close()
    assert nothing_is_left(live)


@pytest.mark.parametrize("room", [0, 1])
def test_no_room_for_every_lane_s_context(live: Counter[str], room: int) -> None:
    spec = double.EngineSpec(FIXED.tensors, FIXED.compute, contexts=room)
    with pytest.raises(MissingDependencyError, match="createExecutionContext: out of memory"):
        opened(spec, lanes=2)
    gc.collect()
    assert nothing_is_left(live)
    assert double.destroyed == [*["context"] * room, "engine", "runtime"]


def test_shapes_that_cannot_be_inferred(live: Counter[str]) -> None:
    backend = opened(double.EngineSpec(FIXED.tensors, FIXED.compute, fails_to_infer=True))
    with pytest.raises(MissingDependencyError, match="infer the shapes"):
        backend.run({"x": np.ones((2, 3), np.float32)})
    backend.close()


def test_out_of_memory_inside_an_allocator_is_not_lost(live: Counter[str]) -> None:
    backend = opened(NONZERO)
    with (
        # Room for 8 floats, and not for 8 indices.
        mock.patch.object(cuda, "MEMORY_BYTES", 48),
        pytest.raises(MissingDependencyError, match="out of memory"),
    ):
        backend.run({"x": np.ones(8, np.float32)})
    assert backend.run({"x": np.ones(8, np.float32)})["at"].shape == (8, 1)
    backend.close()
    assert nothing_is_left(live)


def test_a_plan_that_the_library_refuses(live: Counter[str]) -> None:
    spec = double.EngineSpec(
        FIXED.tensors, FIXED.compute, refuses="deserializeCudaEngine: version mismatch"
    )
    with pytest.raises(EngineFileError, match=r"SM86: deserializeCudaEngine: version mismatch"):
        opened(spec)
    gc.collect()
    assert nothing_is_left(live)


def test_a_tensor_type_that_numpy_lacks(live: Counter[str]) -> None:
    spec = double.EngineSpec([("x", "INPUT", "BF16", (1,), "DEVICE")], FIXED.compute)
    with pytest.raises(EngineFileError, match="BF16"):
        opened(spec)
    gc.collect()
    assert double.destroyed == ["engine", "runtime"]


@pytest.mark.parametrize(
    ("plan", "kind", "words"),
    [
        (rtx_plan(sm_mask=0b1), MissingDependencyError, "SM75, not SM86"),
        (rtx_plan(version=b"\x02\x00\x00\x00"), MissingDependencyError, "2.0.0.0"),
        (rtx_plan(version=b"\x01\x63\x00\x00"), MissingDependencyError, "newer than 1"),
        (rtx_plan(cut=1), EngineFileError, "cut off by 1 bytes"),
        (b"", EngineFileError, "unknown bytes"),
        (b"garbage", EngineFileError, "unknown bytes"),
        (b"PK\x03\x04....", EngineFileError, "a ZIP archive"),
    ],
)
def test_plans_that_cannot_run_here(
    live: Counter[str], plan: bytes, kind: type[Exception], words: str
) -> None:
    with runs(FIXED), pytest.raises(kind, match=words):
        backend_module.open_plan(plan)


def info(**changes: Any) -> PlanInfo:
    fields: dict[str, Any] = {
        "member": "plans/rtx-sm86.plan",
        "backend": "tensorrt_rtx",
        "target": "rtx:sm86",
        "library_version": real.__version__,
        "compute_capabilities": ("86",),
        "build_seconds": 1.0,
    }
    return PlanInfo(**{**fields, **changes})


def test_the_manifest_is_believed_too(live: Counter[str]) -> None:
    with runs(FIXED):
        assert backend_module.plan_problem(info()) == ""
        wrong = info(compute_capabilities=("89", "120"))
        assert "SM89, SM120, not SM86" in backend_module.plan_problem(wrong)
        with pytest.raises(MissingDependencyError, match="SM89, SM120, not SM86"):
            backend_module.open_plan(rtx_plan(), info=wrong)
        backend_module.open_plan(rtx_plan(), info=info()).close()
        # Bytes of one library under the other's name.
        with pytest.raises(MissingDependencyError, match="which tensorrt_rtx does not load"):
            backend_module.open_plan(rtx_plan(), info=info(backend="tensorrt"))


def test_without_a_gpu_the_manifest_is_enough() -> None:
    device._driver.cache_clear()
    with mock.patch.object(device._core, "driver_problem", return_value="no NVIDIA driver"):
        assert "no NVIDIA driver" in backend_module.plan_problem(info())
        with pytest.raises(MissingDependencyError, match="no NVIDIA driver"):
            backend_module.open_plan(rtx_plan(), info=info())


def test_ultralytics_metadata_is_skipped(live: Counter[str]) -> None:
    head = json.dumps({"task": "detect"}).encode()
    with runs(FIXED):
        backend = backend_module.open_plan(struct.pack("<I", len(head)) + head + rtx_plan())
    assert backend.run({"x": np.ones((2, 3), np.float32)})["double"].sum() == 12
    backend.close()


def test_no_lane_is_a_usage_error(live: Counter[str]) -> None:
    with pytest.raises(UsageError, match="lane"):
        opened(FIXED, lanes=0)


def test_a_plan_of_a_library_to_come(live: Counter[str]) -> None:
    assert "'tensorrt_next'" in backend_module.plan_problem(info(backend="tensorrt_next"))


def test_a_library_that_cannot_start(live: Counter[str]) -> None:
    """As full TensorRT does with a driver that is too old: the factory returns nothing."""

    def refuse(logger: Any) -> None:
        logger.log(real.ILogger.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    library = double.library_running(FIXED)
    library.Runtime = refuse  # type: ignore[attr-defined]
    with (
        mock.patch.object(backend_module, "load_library", return_value=library),
        pytest.raises(MissingDependencyError, match=r"error: 35.*visionrt doctor"),
    ):
        backend_module.open_plan(rtx_plan())
