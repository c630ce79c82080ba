"""ONNX Runtime and OpenVINO behind the one interface."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from real_models import mean_color_model, model_path

from visionrt.backends import open_twin
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError, MissingDependencyError, ModelError, UsageError
from visionrt.manifest import TensorInfo

IMAGE = np.arange(3 * 64, dtype=np.float32).reshape(1, 3, 8, 8)


@pytest.fixture(params=["onnxruntime", "openvino"])
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


def test_names_types_and_symbolic_sizes(name: str) -> None:
    backend = open_twin(mean_color_model(), backend=name)
    assert (backend.name, backend.device) == (name, "cpu")
    (image,) = backend.inputs
    assert (image.name, image.dtype, image.shape[1:]) == ("image", "float32", (3, 8, 8))
    assert isinstance(image.shape[0], str)
    assert [o.name for o in backend.outputs] == ["logits"]
    fixed = open_twin(mean_color_model(2), backend=name)
    assert fixed.inputs == (TensorInfo("image", "float32", (2, 3, 8, 8)),)


@pytest.mark.parametrize("batch", [1, 3])
def test_run(name: str, batch: int) -> None:
    backend = open_twin(mean_color_model(), backend=name, threads=1)
    out = backend.run({"image": np.repeat(IMAGE, batch, 0)})
    np.testing.assert_allclose(out["logits"], [IMAGE[0].mean(axis=(1, 2))] * batch, rtol=1e-6)


@pytest.mark.parametrize("in_order", [False, True])
def test_the_order_of_the_nodes_changes_no_result(in_order: bool) -> None:
    backend = OnnxRuntimeBackend(mean_color_model(), in_order=in_order)
    out = backend.run({"image": IMAGE})
    np.testing.assert_allclose(out["logits"], [IMAGE[0].mean(axis=(1, 2))], rtol=1e-6)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity of threads here")
@pytest.mark.parametrize("core", [min, max])
def test_threads_stay_on_the_cores_that_are_allowed(core: Callable[[set[int]], int]) -> None:
    allowed = core(os.sched_getaffinity(0))
    code = f"""
import os
os.sched_setaffinity(0, {{{allowed}}})
from real_models import mean_color_model
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
backend = OnnxRuntimeBackend(mean_color_model())
tasks = [int(task) for task in os.listdir("/proc/self/task")]
print(set().union(*map(os.sched_getaffinity, tasks)))
"""
    folders = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str({allowed})


def test_outputs_are_the_callers_own(name: str) -> None:
    backend = open_twin(mean_color_model(), backend=name)
    first = backend.run({"image": IMAGE})["logits"]
    kept = first.copy()
    backend.run({"image": IMAGE * 0})
    np.testing.assert_array_equal(first, kept)


def nonzero_model() -> bytes:
    """Indices of the values that are not 0: a shape that only the values tell."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 4])
    where = helper.make_tensor_value_info("where", TensorProto.INT64, [2, "found"])
    node = helper.make_node("NonZero", ["image"], ["where"])
    graph = helper.make_graph([node], "nonzero", [image], [where])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def test_a_bound_run_follows_its_tensor(name: str) -> None:
    backend = open_twin(mean_color_model(), backend=name, threads=1)
    tensor = np.zeros((3, 3, 8, 8), np.float32)
    run = backend.bind("image", tensor[:2])  # type: ignore[attr-defined]
    for scale in (1, 2, 3):
        tensor[:2] = IMAGE * np.float32(scale)
        expected = [IMAGE[0].mean(axis=(1, 2)) * scale] * 2
        np.testing.assert_allclose(run()["logits"], expected, rtol=1e-6)
    with pytest.raises(InputDataError, match="image"):
        backend.bind("image", tensor[:, :, :7])  # type: ignore[attr-defined]
    backend.close()
    with pytest.raises(UsageError, match="closed"):
        run()
    with pytest.raises(UsageError, match="closed"):
        backend.bind("image", tensor)  # type: ignore[attr-defined]


def test_a_bound_run_gives_outputs_whose_size_changes(name: str) -> None:
    tensor = np.zeros((1, 4), np.float32)
    run = open_twin(nonzero_model(), backend=name).bind("image", tensor)  # type: ignore[attr-defined]
    for values in ([0, 1, 0, 2], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 3, 0]):
        tensor[0] = values
        np.testing.assert_array_equal(run()["where"], np.nonzero(tensor))


def test_threads_do_not_disturb_each_other(name: str) -> None:
    backend = open_twin(mean_color_model(), backend=name, threads=1)

    def run(scale: int) -> bool:
        out = backend.run({"image": IMAGE * np.float32(scale)})["logits"][0]
        return bool(np.allclose(out, IMAGE[0].mean(axis=(1, 2)) * scale, rtol=1e-5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(400)))


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"images": IMAGE},
        {"image": IMAGE, "more": IMAGE},
        {"image": IMAGE[0]},
        {"image": IMAGE.astype(np.float64)},
        {"image": IMAGE.astype(">f4")},
        {"image": IMAGE[:, :, :7]},
        {"image": np.zeros((1, 8, 8, 3), np.float32)},
    ],
    ids=str,
)
def test_wrong_feeds(name: str, feeds: dict[str, Any]) -> None:
    backend = open_twin(mean_color_model(), backend=name)
    with pytest.raises(InputDataError, match="image"):
        backend.run(feeds)


@pytest.mark.parametrize("model", [b"", b"not a graph", mean_color_model()[:-40]], ids=len)
def test_broken_graphs(name: str, model: bytes) -> None:
    with pytest.raises(ModelError, match="graph"):
        open_twin(model, backend=name)


def test_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="absent"):
        open_twin(tmp_path / "absent.onnx", backend=name)


def test_closed(name: str) -> None:
    backend = open_twin(mean_color_model(), backend=name)
    backend.run({"image": IMAGE})
    backend.close()
    backend.close()
    with pytest.raises(UsageError, match="closed"):
        backend.run({"image": IMAGE})


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_a_missing_library_names_the_cure(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {library}"):
        open_twin(mean_color_model(), backend=library)


def test_bad_arguments() -> None:
    with pytest.raises(UsageError, match="onnxruntime"):
        open_twin(mean_color_model(), backend="tensorrt")
    with pytest.raises(UsageError, match="threads"):
        open_twin(mean_color_model(), threads=0)


def test_both_run_a_real_model_alike() -> None:
    pytest.importorskip("openvino")
    tensor = np.random.default_rng(1).normal(0, 1, (1, 3, 224, 224)).astype(np.float32)
    outs = [
        open_twin(model_path("mobilenet_v2"), backend=name).run({"input": tensor})["logits"]
        for name in ("onnxruntime", "openvino")
    ]
    # Two orders of float32 sums through some fifty layers, on logits of about 10.
    np.testing.assert_allclose(outs[0], outs[1], atol=1e-3)
