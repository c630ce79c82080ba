"""The GPU back end on a GPU: real plans, real memory, against ONNX Runtime on the CPU.

Every check here needs an NVIDIA GPU with its driver and PyCUDA; those of full TensorRT also need
the library, those of TensorRT-RTX a GPU that it builds for.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from trtconvert.targets.base import BuiltPlan, ShapeRange, Target
from trtconvert.targets.rtx import SUPPORTED_SMS, RtxTarget
from visionrt import device
from visionrt.backends.tensorrt import TensorRTBackend, open_plan, plan_problem
from visionrt.child_python import child_python
from visionrt.errors import EngineFileError, InputDataError, MissingDependencyError
from visionrt.plan_header import describe

pytestmark = pytest.mark.gpu

BATCHES = {"images": ShapeRange((1, 3, 224, 224), (1, 3, 224, 224), (4, 3, 224, 224))}
# Convolutions may run in TF32, whose mantissa has 10 bits: 2⁻¹¹ per product, and about 50 layers
# whose errors add up as a random walk: 2⁻¹¹ · √50 ≈ 0.0035 of the largest output.
TF32_TOLERANCE = 2**-11 * 50**0.5


@pytest.fixture(scope="module")
def graph(models: Path) -> bytes:
    return (models / "efficientnet_lite0.onnx").read_bytes()


@pytest.fixture(scope="module")
def plan(target: Target, graph: bytes) -> BuiltPlan:
    return target.build(graph, BATCHES, None)


@pytest.fixture(scope="module")
def backend(plan: BuiltPlan) -> Iterator[TensorRTBackend]:
    opened = open_plan(plan.data, info=plan.info, lanes=2)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference(graph: bytes) -> Callable[[np.ndarray], np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def images(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 3, 224, 224)).astype(np.float32)


def test_copies_and_events(gpu: device.Device) -> None:
    stream, start, end = gpu.stream(), gpu.event(), gpu.event()
    memory, up, down = gpu.buffer(), gpu.pinned(), gpu.pinned()
    sent = up.array((64, 1 << 20), np.uint8)
    sent[:] = np.random.default_rng(0).integers(0, 256, sent.shape, np.uint8)
    received = down.array(sent.shape, np.uint8)
    received[:] = 0
    with gpu.current():
        address = memory.reserve(sent.nbytes)
        start.record(stream)
        gpu.copy_to_device(address, sent, stream)
        gpu.copy_to_host(received, address, stream)
        end.record(stream)
        stream.synchronize()
        assert end.milliseconds_since(start) > 0
    np.testing.assert_array_equal(received, sent)
    for owned in (memory, up, down, start, end, stream):
        owned.close()


def test_memory_comes_back(gpu: device.Device, plan: BuiltPlan) -> None:
    def open_run_close() -> None:
        with_plan = open_plan(plan.data, info=plan.info)
        with_plan.run({"images": images(4)})
        with_plan.close()

    open_run_close()  # what the library keeps for itself is allocated once
    before = gpu.free_memory_bytes()
    for _ in range(3):
        open_run_close()
    assert gpu.free_memory_bytes() >= before - (8 << 20)


def test_the_plan_is_as_the_header_says(gpu: device.Device, plan: BuiltPlan) -> None:
    header = describe(plan.data)
    assert header.library == plan.info.backend
    assert header.version == plan.info.library_version
    assert plan.info.compute_capabilities == (gpu.info.compute_capability,)
    assert plan_problem(plan.info) == ""


@pytest.mark.parametrize("batch", [4, 1, 3])
def test_outputs_match_the_cpu(
    backend: TensorRTBackend, reference: Callable[[np.ndarray], np.ndarray], batch: int
) -> None:
    x = images(batch, seed=batch)
    (out,) = backend.run({"images": x}).values()
    want = reference(x)
    assert out.shape == want.shape
    assert np.abs(out - want).max() <= TF32_TOLERANCE * np.abs(want).max()


def test_a_batch_that_the_profile_does_not_take(backend: TensorRTBackend) -> None:
    with pytest.raises(InputDataError, match="within images"):
        backend.run({"images": images(5)})
    backend.run({"images": images(1)})


def test_threads_get_their_own_answers(backend: TensorRTBackend) -> None:
    inputs = [(k + 1) * images(1 + k % 3, seed=k) for k in range(6)]
    alone = [next(iter(backend.run({"images": x}).values())) for x in inputs]
    # The library may swap in another kernel while it runs, so that only the rounding differs.
    bound = [2 * TF32_TOLERANCE * np.abs(out).max() for out in alone]
    for k in range(3):
        assert np.abs(alone[k] - alone[k + 3]).max() > 2 * max(bound[k], bound[k + 3])
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(20):
            (out,) = backend.run({"images": inputs[k]}).values()
            if np.abs(out - alone[k]).max() > bound[k]:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_sizes_that_the_data_decide(target: Target) -> None:
    if target.backend != "tensorrt":
        pytest.skip("not run: TensorRT-RTX has no NonZero")
    nodes = [helper.make_node("NonZero", ["x"], ["at"])]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8])],
            [helper.make_tensor_value_info("at", TensorProto.INT64, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    built = target.build(model.SerializeToString(), {}, None)
    opened = open_plan(built.data, info=built.info)
    for values in ([1] * 8, [0] * 8, [0, 1, 0, 0, 1, 0, 0, 0], [1] * 8):
        x = np.array(values, np.float32)
        np.testing.assert_array_equal(opened.run({"x": x})["at"], np.array(x.nonzero()))
    opened.close()


def test_refusals(gpu: device.Device, plan: BuiltPlan) -> None:
    with pytest.raises(EngineFileError):
        open_plan(plan.data[: len(plan.data) // 2])
    other = next(sm for sm in SUPPORTED_SMS if sm != gpu.info.compute_capability)
    elsewhere = RtxTarget((other,)).build(_relu(), {}, None)
    with pytest.raises(MissingDependencyError, match=f"SM{other}, not SM"):
        open_plan(elsewhere.data, info=elsewhere.info)


def test_a_flipped_byte_is_an_error_and_no_crash(plan: BuiltPlan, tmp_path: Path) -> None:
    """In a process of its own, since the library may not survive what it reads."""
    damaged = bytearray(plan.data)
    damaged[len(damaged) // 2 : len(damaged) // 2 + 64] = bytes(64)
    (tmp_path / "damaged.plan").write_bytes(damaged)
    code = textwrap.dedent(f"""
        from visionrt.backends.tensorrt import open_plan
        from visionrt.errors import VisionrtError
        try:
            open_plan(open({str(tmp_path / "damaged.plan")!r}, "rb").read()).close()
        except VisionrtError as error:
            print(error)
        """)
    assert _run(code).returncode == 0


def test_leaving_without_close_is_clean(plan: BuiltPlan, tmp_path: Path) -> None:
    (tmp_path / "good.plan").write_bytes(plan.data)
    code = textwrap.dedent(f"""
        import numpy as np
        from visionrt.backends.tensorrt import open_plan
        backend = open_plan(open({str(tmp_path / "good.plan")!r}, "rb").read())
        backend.run({{"images": np.zeros((1, 3, 224, 224), np.float32)}})
        raise SystemExit(3)
        """)
    done = _run(code)
    assert (done.returncode, done.stderr) == (3, "")


def _run(code: str) -> subprocess.CompletedProcess[str]:
    command, environment = child_python(code)
    assert command[0] == sys.executable
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _relu() -> bytes:
    def tensor(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8])

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])], "graph", [tensor("x")], [tensor("y")]
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
