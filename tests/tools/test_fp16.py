"""The typed float16 graph: one tiny graph per rule, then the real models."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import onnxslim
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtconvert.decision import count_precisions
from trtconvert.passes.emulate_half import emulate_half
from trtconvert.passes.half import convert_to_half
from visionrt.errors import ModelError

HEADER = '<ir_version: 9, opset_import: ["": 17]>\n'
REAL = (
    "efficientnet_lite0",
    "mobilenet_v2",
    "movenet_lightning",
    "selfie_segmentation",
    "ssd_mobilenet_v2_coco",
)


def graph(text, **constants):
    model = onnx.parser.parse_model(HEADER + text)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def precisions(model, observed=None):
    typed, decisions = convert_to_half(model, observed)
    onnx.checker.check_model(typed, full_check=True)
    return typed, {d.node: d.precision for d in decisions}


def run(model, *inputs, optimize=True):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def casts(model):
    return [node for node in model.graph.node if node.op_type == "Cast"]


def io_types(model):
    values = [*model.graph.input, *model.graph.output]
    return [(v.name, v.type.tensor_type.elem_type) for v in values]


def test_inputs_and_outputs_keep_names_and_types_and_constants_halve():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y) { t = Mul(x, w)\n y = Sigmoid(t) }",
        w=np.float32([1, 2, 3]),
    )
    typed, found = precisions(model)
    assert found == {"t": "fp16", "y": "fp16"}
    assert io_types(typed) == [("x", TensorProto.FLOAT), ("y", TensorProto.FLOAT)]
    assert [t.data_type for t in typed.graph.initializer] == [TensorProto.FLOAT16]
    assert len(casts(typed)) == 2


def test_an_output_that_is_also_read_inside():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y, float[1,3] z) { y = Sigmoid(x)\n z = Exp(y) }"
    )
    typed, found = precisions(model)
    assert found == {"y": "fp16", "z": "fp32"}
    # One Cast in, one Cast that is both the output y and what Exp reads.
    assert len(casts(typed)) == 2
    x = np.float32([[-1, 0, 2]])
    assert [a.dtype for a in run(typed, x)] == [np.float32, np.float32]


def test_one_cast_per_tensor_however_many_read_it():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y) "
        "{ a = Sigmoid(x)\n b = Tanh(x)\n c = Exp(a)\n d = Exp(b)\n e = Exp(a)\n"
        "  f = Add(c, d)\n y = Add(f, e) }"
    )
    typed, _ = precisions(model)
    sources = [node.input[0] for node in casts(typed)]
    assert len(sources) == len(set(sources))


def test_a_graph_output_that_is_an_input_or_a_constant():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y, float[3] w) { y = Sigmoid(x) }", w=np.float32([1, 2, 3])
    )
    typed, _ = precisions(model)
    _, w = run(typed, np.float32([[1, 2, 3]]))
    assert w.dtype == np.float32
    assert w.tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [70000.0, -1e30, 1e-9])
def test_constants_that_float16_cannot_hold_keep_their_reader_float32(value):
    model = graph(
        "g (float[1,3] x) => (float[1,3] y) { t = Add(x, w)\n y = Sigmoid(t) }",
        w=np.float32([value]),
    )
    typed, found = precisions(model)
    assert found == {"t": "fp32", "y": "fp16"}
    kept = {t.name: t.data_type for t in typed.graph.initializer}
    assert kept == {"w": TensorProto.FLOAT}


@pytest.mark.parametrize("value", [65504.0, 6e-8, 0.0, np.inf])
def test_constants_at_the_edge_of_float16_fit(value):
    model = graph("g (float[1,3] x) => (float[1,3] y) { y = Max(x, w) }", w=np.float32([value]))
    assert precisions(model)[1] == {"y": "fp16"}


def test_a_constant_read_in_both_types_is_stored_twice():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y) { a = Mul(x, w)\n b = Pow(a, w)\n y = Mul(b, w) }",
        w=np.float32([1, 2, 3]),
    )
    typed, found = precisions(model)
    assert found == {"a": "fp16", "b": "fp32", "y": "fp16"}
    types = sorted(t.data_type for t in typed.graph.initializer)
    assert types == sorted([TensorProto.FLOAT, TensorProto.FLOAT16])


@pytest.mark.parametrize("op", ["Exp", "Reciprocal", "ReduceSumSquare", "ReduceL2"])
def test_unsafe_operators_stay_float32(op):
    model = graph(f"g (float[1,3] x) => (float[M,N] y) {{ a = Sigmoid(x)\n y = {op}(a) }}")
    assert precisions(model)[1]["y"] == "fp32"


def test_observed_ranges_keep_producer_and_reader_float32():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y) { a = Mul(x, x)\n b = Sqrt(a)\n y = Sigmoid(b) }"
    )
    assert precisions(model)[1] == {"a": "fp16", "b": "fp16", "y": "fp16"}
    assert precisions(model, {"a": 2e4})[1] == {"a": "fp32", "b": "fp32", "y": "fp16"}


def test_coordinates_stay_float32_and_an_image_is_no_coordinate():
    model = graph(
        "g (uint8[1,3] image, int64[1,3] place) => (float[1,3] y, int64[1,3] index) {\n"
        " pixels = Cast<to=1>(image)\n scaled = Mul(pixels, k)\n a = Sigmoid(scaled)\n"
        " where = Cast<to=1>(place)\n moved = Mul(where, k)\n y = Add(moved, a)\n"
        " step = Floor(a)\n index = Cast<to=7>(step) }",
        k=np.float32([2.0]),
    )
    typed, found = precisions(model)
    assert found == {
        **dict.fromkeys(("pixels", "scaled", "a"), "fp16"),
        **dict.fromkeys(("where", "moved", "y", "step", "index"), "fp32"),
    }
    image = np.uint8([[0, 128, 255]])
    place = np.int64([[2049, 4097, 3]])
    y, _ = run(typed, image, place)
    # 2049 and 4097 are no float16 numbers: they survive only if the path is float32.
    assert np.abs(y - (2 * place + 1 / (1 + np.exp(-2.0 * image)))).max() < 1e-3


def test_the_scales_of_resize_stay_float32():
    model = graph(
        "g (float[1,1,2,2] x) => (float[1,1,4,4] y) { a = Sigmoid(x)\n"
        ' b = Resize<mode="nearest">(a, roi, scales)\n y = Tanh(b) }',
        roi=np.zeros(0, np.float32),
        scales=np.float32([1, 1, 2, 2]),
    )
    typed, found = precisions(model)
    assert set(found.values()) == {"fp16"}
    kept = {t.name: t.data_type for t in typed.graph.initializer}
    assert kept == {"roi": TensorProto.FLOAT, "scales": TensorProto.FLOAT}
    run(typed, np.ones((1, 1, 2, 2), np.float32))


def test_an_operator_whose_schema_has_no_float16_stays_float32():
    model = graph(
        "g (float[1,4,4] boxes, float[1,1,4] scores) => (int64[N,3] y) "
        "{ b = Sigmoid(boxes)\n s = Sigmoid(scores)\n y = NonMaxSuppression(b, s) }"
    )
    typed, found = precisions(model)
    assert found == {"b": "fp16", "s": "fp16", "y": "fp32"}
    run(typed, np.ones((1, 4, 4), np.float32), np.ones((1, 1, 4), np.float32))


def test_an_operator_whose_type_is_an_attribute_stays_float32():
    model = graph(
        "g (float[1,4] x, int64[2] n) => (float[A,B] y) { a = Sigmoid(x)\n"
        " c = ConstantOfShape<value = float[1] {0.5}>(n)\n y = Mul(a, c) }"
    )
    typed, found = precisions(model)
    assert found == {"a": "fp16", "c": "fp32", "y": "fp16"}
    run(typed, np.ones((1, 4), np.float32), np.int64([3, 4]))


def test_dequantize_follows_its_scale_in_every_opset():
    for opset in (19, 21, 23):
        model = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["": {opset}]> g (float[1,3] x) => (float[1,3] y) '
            "{ a = Sigmoid(x)\n q = QuantizeLinear(a, s, z)\n d = DequantizeLinear(q, s, z)\n"
            " y = Tanh(d) }"
        )
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.0078125), "s"))
        model.graph.initializer.append(numpy_helper.from_array(np.int8(0), "z"))
        typed, found = precisions(model)
        assert set(found.values()) == {"fp16"}
        types = {t.data_type for t in typed.graph.initializer}
        assert types == {TensorProto.FLOAT16, TensorProto.INT8}


def test_data_movement_follows_what_it_reads():
    model = graph(
        "g (float[1,4] x) => (float[2,2] y) { a = Reshape(x, s)\n b = Sigmoid(a)\n"
        " c = Transpose(b)\n d = Exp(c)\n y = Reshape(d, s) }",
        s=np.int64([2, 2]),
    )
    found = precisions(model)[1]
    assert found == {"a": "fp32", "b": "fp16", "c": "fp16", "d": "fp32", "y": "fp32"}


@pytest.mark.parametrize(
    "choice",
    [
        "y = ArgMax<axis=1>(a)",
        "y = ArgMin<axis=1>(a)",
        "k = Constant<value_ints=[1]>()\n v, y = TopK(a, k)",
    ],
)
def test_what_is_ordered_is_not_rounded_for_it(choice):
    # exp(x) is float32; all six of these are one number in float16.
    x = 3 + np.float32([[0, 1, 3, 2, -1, 0]]) * 1e-5
    model = graph(f"g (float[1,6] x) => (int64[1,1] y) {{ a = Exp(x)\n {choice} }}")
    typed, _ = precisions(model)
    assert [node.op_type for node in typed.graph.node if node.op_type == "Cast"] == []
    expected = 4 if "ArgMin" in choice else 2
    assert run(model, x)[0].item() == run(emulate_half(typed), x)[0].item() == expected


def test_what_is_ordered_stays_float16_where_it_is():
    model = graph("g (float[1,6] x) => (int64[1,1] y) { a = Sigmoid(x)\n y = ArgMax<axis=1>(a) }")
    assert precisions(model)[1] == {"a": "fp16", "y": "fp16"}


def test_an_unknown_domain_stays_float32():
    model = graph(
        "g (float[1,4] x) => (float[1,4] y) { a = Sigmoid(x)\n b = Sigmoid(a)\n y = Tanh(b) }"
    )
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 4]))
    assert precisions(model)[1] == {"a": "fp16", "b": "fp32", "y": "fp16"}


def test_qdq_pairs_of_an_older_opset_keep_float32_scales():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y) { a = Sigmoid(x)\n q = QuantizeLinear(a, s, z)\n"
        " d = DequantizeLinear(q, s, z)\n y = Tanh(d) }",
        s=np.float32(0.0078125),
        z=np.int8(0),
    )
    assert precisions(model)[1] == {"a": "fp16", "q": "fp32", "d": "fp32", "y": "fp16"}


def test_a_graph_that_is_float16_already_is_left_alone():
    model = graph("g (float16[1,3] x) => (float16[1,3] y) { t = Sigmoid(x)\n y = Tanh(t) }")
    typed, found = precisions(model)
    assert set(found.values()) == {"integer"}
    assert [n.op_type for n in typed.graph.node] == ["Sigmoid", "Tanh"]


def test_control_flow_is_refused_by_name():
    body = [
        helper.make_graph(
            [helper.make_node(op, ["x"], ["r"])],
            op,
            [],
            [helper.make_tensor_value_info("r", TensorProto.FLOAT, [1])],
        )
        for op in ("Neg", "Abs")
    ]
    node = helper.make_node(
        "If", ["c"], ["y"], name="gate", then_branch=body[0], else_branch=body[1]
    )
    info = helper.make_tensor_value_info
    main = helper.make_graph(
        [node],
        "g",
        [info("c", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, [1])],
        [info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(main, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(ModelError, match="gate"):
        convert_to_half(model)


def test_types_that_do_not_fit_are_refused():
    model = graph("g (float[1,3] x) => (float[1,4] y) { y = Sigmoid(x) }")
    with pytest.raises(ModelError):
        convert_to_half(model)


@pytest.mark.parametrize("optimize", [True, False])
def test_emulation_equals_numpy_float16_through_an_overflow(optimize):
    model = graph(
        "g (float[1,5] x) => (float[1,5] y, float[1,5] z) {\n"
        " a = Mul(x, big)\n b = Mul(a, small)\n c = Add(b, third)\n y = Mul(c, third)\n"
        " z = Mul(x, tiny) }",
        big=np.float32([1024]),
        small=np.float32([2**-10]),
        third=np.float32([1 / 3]),
        tiny=np.float32([2**-14]),
    )
    typed, _ = convert_to_half(model)
    x = np.float32([[100.0, -63.97, 0.1, 1e-3, 7.7e-4]])
    half = np.float16
    with np.errstate(over="ignore"):
        b = (x.astype(half) * half(1024)) * half(2**-10)
        y = (b + half(1 / 3)) * half(1 / 3)
        z = x.astype(half) * half(2**-14)
    assert np.isinf(y[0, 0])  # 100 * 1024 is beyond 65504
    got_y, got_z = run(emulate_half(typed), x, optimize=optimize)
    np.testing.assert_array_equal(got_y, y.astype(np.float32))
    np.testing.assert_array_equal(got_z, z.astype(np.float32))


def test_emulation_holds_no_float16_value_but_between_two_casts():
    model = graph(
        "g (float[1,3] x) => (float[1,3] y) { t = Mul(x, w)\n y = Sigmoid(t) }",
        w=np.float32([1, 2, 3]),
    )
    emulated = emulate_half(convert_to_half(model)[0])
    onnx.checker.check_model(emulated, full_check=True)
    assert all(t.data_type == TensorProto.FLOAT for t in emulated.graph.initializer)
    halves = {n.output[0] for n in casts(emulated) if n.attribute[0].i == TensorProto.FLOAT16}
    readers = [n.op_type for n in emulated.graph.node if halves & set(n.input)]
    assert readers == ["Cast"] * len(halves)


@pytest.mark.parametrize("name", REAL)
def test_real_models_convert_and_run(name, models):
    clean = onnxslim.slim(onnx.load(models / f"{name}.onnx"))
    typed, decisions = convert_to_half(clean)
    onnx.checker.check_model(typed, full_check=True)
    assert len(decisions) == len(clean.graph.node)
    assert io_types(typed) == io_types(clean)
    counts = count_precisions(decisions)
    assert counts["fp16"] > 0.75 * sum(counts.values())
    value = clean.graph.input[0]
    shape = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape).astype(np.float32) / 128 - 1
    if value.type.tensor_type.elem_type == TensorProto.UINT8:
        image = rng.integers(0, 256, shape, np.uint8)
    for got, want in zip(run(typed, image), run(clean, image), strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        # Errors of 2^-11 per rounding add up like a random walk; this bound is for a broken
        # graph, the agreement on photos is measured elsewhere.
        assert np.abs(got - want).max() < 0.05 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("name", ["movenet_lightning"])
def test_a_uint8_model_builds_for_rtx(name, models):
    pytest.importorskip("tensorrt_rtx")
    from trtconvert.targets.rtx import RtxTarget

    typed, _ = convert_to_half(onnxslim.slim(onnx.load(models / f"{name}.onnx")))
    built = RtxTarget(("86",)).build(typed.SerializeToString(), {}, None)
    assert len(built.data) > 1 << 20
