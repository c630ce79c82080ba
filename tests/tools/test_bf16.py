"""The typed bfloat16 graph: its rounding, its rules where they differ from float16's, RTX."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, numpy_helper

from trtconvert.building import chosen_targets
from trtconvert.options import BuildOptions
from trtconvert.passes.emulate_half import emulate_half
from trtconvert.passes.half import convert_to_half
from trtconvert.passes.half_types import BF16, FP16, rounded, rounded_tensor
from trtconvert.passes.quantize import raise_opset
from trtconvert.precision import typed_graph
from trtconvert.targets.rtx import RtxTarget
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import UsageError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

HEADER = '<ir_version: 10, opset_import: ["": 22]>\n'
RECIPE = Recipe(task="classify", head="classifier", preprocess=PreprocessSpec(size=(8, 8)))


def graph(text, **constants):
    model = onnx.parser.parse_model(HEADER + text)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def precisions(model, half=BF16):
    typed, decisions = convert_to_half(model, half=half)
    onnx.checker.check_model(typed, full_check=True)
    return typed, {d.node: d.precision for d in decisions}


def by_cast(values):
    """The rounding as ONNX Runtime's Cast makes it."""
    model = graph(
        f"g (float[{len(values)}] x) => (float[{len(values)}] y)"
        f" {{ h = Cast<to={TensorProto.BFLOAT16}>(x)\n y = Cast<to={TensorProto.FLOAT}>(h) }}"
    )
    backend = OnnxRuntimeBackend(model.SerializeToString(), optimize=False)
    return backend.run({"x": values})["y"]


def test_rounding_equals_a_cast_at_ties_limits_and_subnormals():
    rng = np.random.default_rng(0)
    exponents = rng.integers(-44, 38, 20_000)
    random = (rng.normal(size=20_000) * 10.0**exponents).astype(np.float32)
    ties = np.uint32([0x3F808000, 0x3F818000, 0x3F808001, 0x00008000, 0x7F7F8000]).view(np.float32)
    special = np.float32([0.0, -0.0, np.inf, -np.inf, 1e-45, 3.4e38, -3.4e38])
    values = np.concatenate([random, ties, -ties, special])
    got = rounded(values, BF16)
    np.testing.assert_array_equal(got.view(np.uint32), by_cast(values).view(np.uint32))
    assert np.isnan(rounded(np.float32([np.nan]), BF16)).all()
    assert BF16.largest == np.float32(3.3895314e38)
    assert rounded_tensor(np.float32([[1, 2]]), BF16, "w").dims == [1, 2]


def test_what_overflows_float16_is_safe_in_bfloat16_and_positions_in_neither():
    model = graph(
        "g (float[1,4] x, int64[4] i) => (float[1,4] y, float[1,4] z) { a = Mul(x, big)\n"
        " b = Exp(a)\n y = ReduceSum<keepdims=1>(b, none)\n p = Cast<to=1>(i)\n z = Add(p, x) }",
        big=np.float32(1e9),
        none=np.int64([0]),
    )
    assert precisions(model)[1] == {"a": "bf16", "b": "bf16", "y": "bf16", "p": "fp32", "z": "fp32"}
    assert set(precisions(model, FP16)[1].values()) == {"fp32"}


def test_an_operator_that_the_parser_refuses_in_bfloat16_stays_float32():
    model = graph("g (float[1,4] x) => (float[1,4] y) { a = Neg(x)\n y = HardSwish(a) }")
    assert precisions(model)[1] == {"a": "bf16", "y": "fp32"}


def test_convolutions_take_bfloat16_once_the_opset_is_raised():
    old = graph("g (float[1,1,4,4] x) => (float[1,1,4,4] y) { y = Conv(x, w) }", w=_kernel())
    old.opset_import[0].version = 17
    assert set(precisions(old)[1].values()) == {"fp32"}
    assert set(precisions(raise_opset(old, BF16.opset))[1].values()) == {"bf16"}


def _kernel():
    return np.float32([[[[1.25]]]])


def test_emulation_equals_arithmetic_rounded_by_hand():
    model = graph(
        "g (float[1,64] x) => (float[1,64] y) { a = Mul(x, third)\n b = Add(a, x)\n y = Sqrt(b) }",
        third=np.float32([1 / 3]),
    )
    typed, found = precisions(model)
    assert set(found.values()) == {"bf16"}
    x = np.random.default_rng(1).uniform(0.1, 1e6, (1, 64)).astype(np.float32)
    step = by_cast
    start = step(x[0])
    b = step(step(start * step(np.float32([1 / 3]))) + start)
    backend = OnnxRuntimeBackend(emulate_half(typed).SerializeToString())
    np.testing.assert_array_equal(backend.run({"x": x})["y"][0], step(np.sqrt(b)))


@pytest.mark.parametrize("sm", ["86", "120"])
def test_a_bfloat16_graph_builds_for_rtx(sm):
    pytest.importorskip("tensorrt_rtx")
    model = graph(
        "g (float[1,3,8,8] x) => (float[1,4] y) { a = Conv<pads=[1,1,1,1]>(x, w)\n b = Relu(a)\n"
        " h = HardSwish(b)\n u = ConvTranspose(h, v, bias)\n p = GlobalAveragePool(u)\n"
        " y = Flatten(p) }",
        v=np.random.default_rng(1).normal(size=(4, 4, 2, 2)).astype(np.float32),
        bias=np.ones(4, np.float32),
        w=np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32),
    )
    for node in model.graph.node:
        node.name = node.output[0]
    model.opset_import[0].version = 17
    typed = typed_graph(model, RECIPE, "bf16")
    assert typed.precision == "bf16"
    assert typed.nodes_by_precision["bf16"] == 4
    assert typed.twin_precision == "fp32"
    assert RtxTarget((sm,)).build(typed.model.SerializeToString(), {}, None)


def test_turing_has_no_bfloat16(tmp_path):
    options = BuildOptions(
        tmp_path / "model.onnx", tmp_path / "out.engine", targets=("rtx:sm75",), precision="bf16"
    )
    with pytest.raises(UsageError, match=r"GPUs of SM80 or newer.*got rtx:sm75"):
        chosen_targets(options, [])
