"""Q/DQ placement and arithmetic: one tiny graph per rule, checked against float64 NumPy."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from trtconvert.graph_view import GraphView
from trtconvert.passes.half import convert_to_half
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import insert_qdq, raise_opset
from trtconvert.passes.quantize_weights import (
    SCALE_MIN,
    dequantized_weight,
    quantized_weight,
    scale_for,
    weight_scales,
)
from visionrt.errors import ModelError

HEADER = '<ir_version: 9, opset_import: ["": 19]>\n'
RNG = np.random.default_rng(7)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def view_of(text, **constants):
    model = onnx.parser.parse_model(HEADER + text)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return GraphView(model)


def run(model, x):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def ops(model):
    return [node.op_type for node in model.graph.node]


def quantize64(x, scale, lowest):
    return np.clip(np.rint(x.astype(np.float64) / np.float64(scale)), lowest, 127)


CONV = "g (float[1,2,5,5] x) => (float[1,4,3,3] y) { y = Conv(x, w, b) }"


def test_conv_arithmetic_equals_numpy():
    w, b, x = normal(4, 2, 3, 3), normal(4), normal(1, 2, 5, 5) * 3
    view = view_of(CONV, w=w, b=b)
    placement = place_int8(view)
    model = insert_qdq(view, placement, {"x": 4.0})
    onnx.checker.check_model(model, full_check=True)
    step = float(scale_for(4.0))
    xq = quantize64(x, step, -128) * step
    scales = np.float64(weight_scales(w, 0))
    wq = quantize64(w, scales[:, None, None, None], -127) * scales[:, None, None, None]
    want = np.zeros((1, 4, 3, 3))
    for i in range(3):
        for j in range(3):
            want[0, :, i, j] = (wq * xq[0, :, i : i + 3, j : j + 3]).sum(axis=(1, 2, 3)) + b
    # float32 sums of 18 products: 18 roundings of the largest partial sum.
    bound = 18 * 2.0**-24 * (np.abs(wq).sum() * np.abs(xq).max())
    assert np.abs(run(model, x) - want).max() < bound


@pytest.mark.parametrize(
    ("text", "shape", "axis"),
    [
        ("g (float[3,6] x) => (float[3,5] y) { y = Gemm<transB=1>(x, w) }", (5, 6), 0),
        ("g (float[3,6] x) => (float[3,5] y) { y = Gemm(x, w) }", (6, 5), 1),
        ("g (float[2,3,6] x) => (float[2,3,5] y) { y = MatMul(x, w) }", (6, 5), 1),
    ],
)
def test_matrix_products_scale_each_output_channel(text, shape, axis):
    # Output channels of very different size: a wrong axis would lose the small ones.
    sizes = 10.0 ** np.arange(-3, 2)
    w = normal(*shape) * np.float32(sizes[:, None] if axis == 0 else sizes)
    view = view_of(text, w=w)
    placement = place_int8(view)
    assert [q.axis for q in placement.nodes] == [axis]
    model = insert_qdq(view, placement, {"x": 4.0})
    x = normal(*view.static_shape("x"))
    matrix = w.T if axis == 0 else w
    error = np.abs(run(model, x) - x @ matrix) / sizes
    assert error.max() < 0.3


def test_weight_scales_stay_within_float16():
    w = normal(3, 4)
    w[1] = 0.0
    w[2] *= 1e-9
    integers, scales = quantized_weight(w, 0)
    assert (scales >= SCALE_MIN).all()
    assert (scales == scales.astype(np.float16)).all()
    assert not integers[1].any()
    assert scale_for(0.0) == np.float32(2.0**-14)
    assert scale_for(1e9) == np.float32(65504)


def test_clipping_weights_never_adds_squared_error():
    w = normal(4, 40960)
    w[3, 5] = 8.0
    plain = weight_scales(w, 0, clip=False)[:, None]
    restored = np.clip(np.rint(w / plain), -127, 127) * plain
    clipped = dequantized_weight(w, 0)
    error = np.square(np.float64(clipped) - w).sum(axis=1)
    assert (error <= np.square(np.float64(restored) - w).sum(axis=1)).all()
    # One weight of 8 pays less than 40959 weights gain from a step a fifth finer.
    assert error[3] < 0.9 * np.square(np.float64(restored) - w).sum(axis=1)[3]


def test_bias_correction_is_subtracted_and_made_where_there_is_none():
    w = normal(4, 2, 3, 3)
    text = "g (float[1,2,5,5] x) => (float[1,4,3,3] y) { y = Conv(x, w) }"
    x = normal(1, 2, 5, 5)
    for view in (view_of(text, w=w), view_of(CONV, w=w, b=normal(4))):
        placement = place_int8(view)
        error = np.float32([1, 2, 3, 4])
        plain = run(insert_qdq(view, placement, {"x": 4.0}), x)
        moved = run(insert_qdq(view, placement, {"x": 4.0}, {0: error}), x)
        np.testing.assert_allclose(
            plain - moved, error[None, :, None, None].repeat(3, 2).repeat(3, 3), atol=1e-5
        )


def test_biases_are_never_integers():
    view = view_of(CONV, w=normal(4, 2, 3, 3), b=normal(4))
    model = insert_qdq(view, place_int8(view), {"x": 4.0})
    types = {t.data_type for t in model.graph.initializer}
    assert types == {TensorProto.FLOAT, TensorProto.INT8}


def test_one_pair_per_tensor_however_many_read_it():
    view = view_of(
        "g (float[1,2,5,5] x) => (float[1,4,5,5] y) { a = Conv(x, w)\n b = Conv(x, w)\n"
        " y = Add(a, b) }",
        w=normal(4, 2, 1, 1),
    )
    model = insert_qdq(view, place_int8(view), {"x": 4.0})
    assert ops(model).count("QuantizeLinear") == 1
    # One for the activation, one for the weight both share.
    assert ops(model).count("DequantizeLinear") == 2


def test_a_residual_sum_reads_the_pair_of_its_skip_branch():
    view = view_of(
        "g (float[1,4,5,5] x) => (float[1,4,5,5] y) { r = Relu(x)\n a = Conv(r, w)\n"
        " s = Add(a, r)\n y = Add(s, k) }",
        w=normal(4, 4, 1, 1),
        k=normal(1, 4, 1, 1),
    )
    placement = place_int8(view)
    model = insert_qdq(view, placement, {"r": 4.0})
    add = next(node for node in model.graph.node if node.output[0] == "s")
    assert add.input[0] == "a"
    assert add.input[1] != "r"
    assert placement.residuals == ((2, 1),)


def test_heads_and_unlike_things_stay_float():
    view = view_of(
        "g (float[1,2,4,4] x) => (float[1,8,4,4] y) { boxes = Conv(x, w)\n raw = Conv(x, w)\n"
        " scores = Sigmoid(raw)\n y = Concat<axis=1>(boxes, scores) }",
        w=normal(4, 2, 1, 1),
    )
    placement = place_int8(view)
    assert placement.activations == ("x",)
    found = {d.node: d.precision for d in placement.decisions}
    assert found == {"boxes": "int8", "raw": "int8", "scores": "float", "y": "float"}
    assert all(d.reason for d in placement.decisions)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[1,4,1,1] x) => (float[1,4,1,1] y) { y = Conv(x, w) }", "1x1"),
        ("g (float[1,4,5,5] x) => (float[1,4,5,5] y) { y = ConvTranspose(x, w) }", "transposed"),
        ("g (float[1,4,5,5] x) => (float[1,4,5,5] y) { v = Abs(w)\n y = Conv(x, v) }", "computed"),
        (
            "g (float[1,4,5,5] x) => (float[1,4,5,5] y) { q = QuantizeLinear(x, s)\n"
            " d = DequantizeLinear(q, s)\n y = Conv(d, w) }",
            "quantized already",
        ),
    ],
)
def test_what_stays_float_and_why(text, reason):
    placement = place_int8(view_of(text, w=normal(4, 4, 1, 1), s=np.float32(0.1)))
    assert not placement.nodes
    assert reason in placement.decisions[-1].reason


@pytest.mark.parametrize("change", ["alpha=0.5", "beta=2.0", "transA=1"])
def test_a_scaled_gemm_stays_float(change):
    text = f"g (float[4,4] x) => (float[4,4] y) {{ y = Gemm<{change}>(x, w, w) }}"
    assert not place_int8(view_of(text, w=normal(4, 4))).nodes


def test_nodes_can_be_kept_float_and_dead_inputs_are():
    view = view_of(CONV, w=normal(4, 2, 3, 3), b=normal(4))
    kept = place_int8(view, keep={"y": "too noisy"})
    assert not kept.nodes
    assert kept.decisions[0].reason == "too noisy"
    assert not place_int8(view, dead={"x"}).nodes


def test_a_missing_range_is_refused():
    view = view_of(CONV, w=normal(4, 2, 3, 3), b=normal(4))
    with pytest.raises(ModelError, match="'x'"):
        insert_qdq(view, place_int8(view), {})


def test_the_opset_is_raised_once():
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 13]> g (float[1,4] x) => (float[1] y) '
        "{ y = ReduceMean<axes=[1], keepdims=0>(x) }"
    )
    raised = raise_opset(model)
    assert raised.opset_import[0].version == 19
    x = normal(1, 4)
    np.testing.assert_allclose(run(raised, x), x.mean(axis=1), rtol=1e-6)
    assert raise_opset(raised) is raised


def test_the_float16_remainder_holds_the_same_integers():
    view = view_of(CONV, w=normal(4, 2, 3, 3), b=normal(4))
    twin = insert_qdq(view, place_int8(view), {"x": 4.0})
    typed, _ = convert_to_half(twin)
    onnx.checker.check_model(typed, full_check=True)

    def integers(model):
        arrays = [numpy_helper.to_array(t) for t in model.graph.initializer]
        return sorted(a.tobytes() for a in arrays if a.dtype == np.int8)

    def scales(model):
        nodes = [n for n in model.graph.node if n.op_type == "DequantizeLinear"]
        table = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        return [table[n.input[1]].astype(np.float64).tolist() for n in nodes]

    assert integers(twin) == integers(typed)
    assert scales(twin) == scales(typed)
