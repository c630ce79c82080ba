"""The GPU back end's logic, on a double of what needs a GPU (``tensorrt_double``).

What a real GPU makes of it is in ``tests/gpu``.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
from collections import Counter
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorrt_contract as contract
import tensorrt_double as double
import tensorrt_rtx as real
from tensorrt_engines import DYNAMIC, FIXED, NONZERO, nothing_is_left, opened
from tensorrt_versions import full_plan, full_tensorrt

from visionrt.backends import tensorrt as backend_module
from visionrt.errors import EngineFileError, InputDataError, UsageError


def test_the_double_has_no_name_that_the_bindings_lack() -> None:
    """A call that the code makes and the real library lacks must not pass here."""
    kinds = (double.IExecutionContext, double.ICudaEngine, double.Runtime)
    for kind in (*kinds, double.IRuntimeConfig, double.IRuntimeCache):
        role = getattr(real, kind.__name__)
        for name in vars(kind):
            if not name.startswith("_") and name != "spec":
                assert hasattr(role, name), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("version", contract.stored_versions())
def test_the_double_has_no_name_that_full_tensorrt_lacks(version: str) -> None:
    """Besides those that are used with TensorRT-RTX alone."""
    names = contract.stored_names(version) | contract.RTX_ONLY
    for kind in (double.IExecutionContext, double.ICudaEngine, double.Runtime):
        for name in vars(kind):
            if not name.startswith("_") and name != "spec":
                assert f"{kind.__name__}.{name}" in names


@pytest.mark.parametrize("version", contract.stored_versions())
def test_full_tensorrt_by_the_names_that_a_version_has(live: Counter[str], version: str) -> None:
    """What a version lacks is not there, so that a call of it is an error here, too."""

    def opened_by(spec: double.EngineSpec) -> backend_module.TensorRTBackend:
        library = full_tensorrt(double.library_running(spec), version)
        assert not hasattr(library, "IRuntimeCache")
        with mock.patch.object(backend_module, "load_library", return_value=library):
            return backend_module.open_plan(full_plan(version))

    backend = opened_by(FIXED)
    assert backend.name == "tensorrt"
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    np.testing.assert_array_equal(backend.run({"x": x})["double"], x * 2)
    context = backend._engine._open_lanes[0]._plain
    assert context is not None
    with pytest.raises(AttributeError, match=r"no IExecutionContext\.is_stream_capturable"):
        context.raw.is_stream_capturable(1)
    del context
    backend.close()
    assert double.destroyed[-2:] == ["engine", "runtime"]
    backend = opened_by(DYNAMIC)
    for shape in ((1, 3, 8, 8), (8, 3, 16, 16), (1, 3, 64, 63)):
        pixels = np.full(shape, 7, np.uint8)
        np.testing.assert_array_equal(backend.run({"x": pixels})["y"], np.full(shape, -293))
    backend.close()
    backend = opened_by(NONZERO)
    assert backend.run({"x": np.eye(8, dtype=np.float32)[2]})["at"].tolist() == [[2]]
    backend.close()
    with pytest.raises(EngineFileError, match=f"a plan that tensorrt {version} loads.*corrupt"):
        opened_by(dataclasses.replace(FIXED, refuses="corrupt"))


def test_runs_and_describes_itself(live: Counter[str]) -> None:
    backend = opened(FIXED)
    assert (backend.name, backend.device) == ("tensorrt_rtx", "cuda:0")
    assert list(map(str, backend.inputs)) == ["x float32[2, 3]"]
    assert list(map(str, backend.outputs)) == ["double float32[2, 3]", "total float16[1]"]
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
        # A view with a stride, which cannot be copied as it lies.
        out = backend.run({"x": np.asfortranarray(x)})
        np.testing.assert_array_equal(out["double"], x * 2)
        assert out["total"].dtype == np.float16
    backend.close()


def test_outputs_are_the_callers_own(live: Counter[str]) -> None:
    backend = opened(FIXED)
    first = backend.run({"x": np.ones((2, 3), np.float32)})["double"]
    backend.run({"x": np.zeros((2, 3), np.float32)})
    backend.close()
    np.testing.assert_array_equal(first, np.full((2, 3), 2))


def test_dynamic_sizes_and_several_profiles(live: Counter[str]) -> None:
    backend = opened(DYNAMIC)
    assert str(backend.inputs[0]) == "x uint8[d0, 3, d2, d3]"
    rng = np.random.default_rng(0)
    for shape in [(1, 3, 8, 8), (8, 3, 16, 16), (2, 3, 9, 11), (1, 3, 64, 63), (1, 3, 8, 8)]:
        x = rng.integers(0, 256, shape, np.uint8)
        np.testing.assert_array_equal(backend.run({"x": x})["y"], x.astype(int) - 300)
    # Profile 0 is active at first; a switch happens only when the active one does not fit.
    assert double.profile_switches == [1, 0]
    backend.close()


@pytest.mark.parametrize("shape", [(1, 3, 65, 8), (9, 3, 8, 8), (2, 3, 17, 8), (1, 3, 7, 8)])
def test_a_size_that_no_profile_takes(live: Counter[str], shape: tuple[int, ...]) -> None:
    backend = opened(DYNAMIC)
    with pytest.raises(InputDataError, match=r"within x \(1, 3, 8, 8\)…\(1, 3, 64, 64\) or"):
        backend.run({"x": np.zeros(shape, np.uint8)})
    # The lane is as good as before.
    assert backend.run({"x": np.zeros((1, 3, 8, 8), np.uint8)})["y"].max() == -300
    backend.close()


def test_sizes_that_the_data_decide(live: Counter[str]) -> None:
    backend = opened(NONZERO)
    for values in ([1] * 8, [0] * 8, [0, 1, 0, 1, 0, 0, 0, 0], [1] * 8):
        out = backend.run({"x": np.array(values, np.float32)})
        np.testing.assert_array_equal(out["at"], np.argwhere(values))
        assert out["at"].shape[1] == 1
        np.testing.assert_array_equal(out["x2"], np.array(values) * 2)
    backend.close()


def test_tensors_in_host_memory(live: Counter[str]) -> None:
    backend = opened(
        double.EngineSpec(
            tensors=[
                ("x", "INPUT", "INT64", (2,), "HOST"),
                ("y", "OUTPUT", "INT64", (2,), "HOST"),
            ],
            compute=lambda f: {"y": f["x"][::-1].copy()},
        )
    )
    out = backend.run({"x": np.array([3, 4], np.int64)})
    np.testing.assert_array_equal(out["y"], [4, 3])
    backend.close()


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "inputs"),
        ({"x": np.zeros((2, 3), np.float64)}, "float64"),
        ({"x": np.zeros((3, 2), np.float32)}, r"\[3, 2\]"),
        ({"x": np.zeros(6, np.float32)}, r"\[6\]"),
        ({"x": np.zeros((2, 3), np.float32), "z": np.zeros(1)}, "z"),
    ],
)
def test_wrong_feeds(live: Counter[str], feeds: dict[str, Any], words: str) -> None:
    backend = opened(FIXED)
    with pytest.raises(InputDataError, match=words):
        backend.run(feeds)
    backend.close()


@pytest.mark.parametrize("lanes", [1, 2])
def test_threads_never_share_a_context(live: Counter[str], lanes: int) -> None:
    backend = opened(FIXED, lanes=lanes)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        try:
            for k in range(40):
                x = np.full((2, 3), seed * 100 + k, np.float32)
                if (backend.run({"x": x})["double"] != x * 2).any():
                    wrong.append((seed, k))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    backend.close()
    assert wrong == []


@pytest.mark.parametrize("how", ["close", "collect"])
def test_everything_is_released_in_order(live: Counter[str], how: str) -> None:
    backend = opened(FIXED, lanes=2)
    backend.run({"x": np.ones((2, 3), np.float32)})
    assert not nothing_is_left(live)
    if how == "close":
        backend.close()
        backend.close()
        with pytest.raises(UsageError, match="closed"):
            backend.run({"x": np.ones((2, 3), np.float32)})
    else:
        del backend
    gc.collect()
    assert double.destroyed == ["context", "context", "engine", "runtime"]
    assert nothing_is_left(live)
    assert live["stream destroyed without a context"] == 0


def test_close_waits_for_a_running_call(live: Counter[str]) -> None:
    started, go = threading.Event(), threading.Event()

    def slow(feeds: double.Arrays) -> double.Arrays:
        started.set()
        assert go.wait(10)
        return {"y": feeds["x"]}

    backend = opened(
        double.EngineSpec(
            tensors=[
                ("x", "INPUT", "FLOAT", (1,), "DEVICE"),
                ("y", "OUTPUT", "FLOAT", (1,), "DEVICE"),
            ],
            compute=slow,
        )
    )
    results: list[Any] = []
    caller = threading.Thread(
        target=lambda: results.append(backend.run({"x": np.ones(1, np.float32)}))
    )
    caller.start()
    assert started.wait(10)
    closer = threading.Thread(target=backend.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    go.set()
    caller.join()
    closer.join()
    assert results[0]["y"] == [1.0]
