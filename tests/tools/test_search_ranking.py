"""What orders the nodes of a search: their cost, and the noise that each brings."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper
from tiny_models import tiny_classifier

from trtconvert.calibration.collect import with_outputs
from trtconvert.decision import Decision
from trtconvert.graph_view import GraphView, node_name
from trtconvert.passes.half import convert_to_half
from trtconvert.passes.half_types import BF16
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import insert_qdq
from trtconvert.progress import silent
from trtconvert.search.answers import raw_answers
from trtconvert.search.choices import CHOICES, parts_of, power_keeping
from trtconvert.search.cost import flops_by_precision, node_cost, node_flops, total_cost
from trtconvert.search.half_noise import half_noise
from trtconvert.search.noise import int8_noise
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

HEADER = '<ir_version: 9, opset_import: ["": 19]>\n'


def view_of(text, **constants):
    model = onnx.parser.parse_model(HEADER + text)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return GraphView(model)


# Cost


def test_flops_equal_a_count_by_hand():
    view = view_of(
        "g (float[1,4,8,8] x) => (float[1,5] y) { c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)\n"
        " d = Conv<group=6>(c, v)\n t = ConvTranspose(d, u)\n p = GlobalAveragePool(t)\n"
        " f = Flatten(p)\n y = Gemm<transB=1>(f, k) }",
        w=np.zeros((6, 4, 3, 3), np.float32),
        v=np.zeros((6, 1, 1, 1), np.float32),
        u=np.zeros((6, 3, 2, 2), np.float32),
        k=np.zeros((5, 3), np.float32),
    )
    flops = [node_flops(view, node) for node in view.model.graph.node]
    assert flops == [2 * 6 * 16 * 36, 2 * 6 * 16, 2 * 6 * 16 * 3 * 4, 0, 0, 2 * 5 * 3]
    decisions = [Decision(n.output[0], n.op_type, "int8", "") for n in view.model.graph.node]
    decisions[1] = decisions[1]._replace(precision="fp16")
    assert flops_by_precision(view, decisions) == {
        "int8": sum(flops) - flops[1],
        "fp16": flops[1],
    }


def test_a_wider_precision_never_costs_less():
    view = GraphView(tiny_classifier(batch=1))
    nodes = view.model.graph.node
    for node in nodes:
        costs = [node_cost(view, node, precision) for precision in ("int8", "fp16", "fp32")]
        assert costs == sorted(costs)
    for combination in itertools.product(("int8", "fp16", "fp32"), repeat=2):
        base = [Decision(n.name, n.op_type, "int8", "") for n in nodes]
        changed = list(base)
        changed[0] = base[0]._replace(precision=combination[0])
        changed[-1] = base[-1]._replace(precision=combination[1])
        assert total_cost(view, changed) >= total_cost(view, base)


# Ranking


def test_int8_noise_equals_a_graph_with_that_node_quantized_alone():
    rng = np.random.default_rng(3)
    view = view_of(
        "g (float[1,3,6,6] x) => (float[1,5,6,6] y) { a = Conv(x, w)\n b = Relu(a)\n"
        " c = Conv(b, v)\n y = Softmax<axis=1>(c) }",
        w=rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        v=rng.normal(size=(5, 4, 1, 1)).astype(np.float32),
    )
    assert raw_answers(view) == ["c"]
    images = [rng.normal(size=(1, 3, 6, 6)).astype(np.float32) for _ in range(2)]
    placement, thresholds = place_int8(view), {"x": 3.0, "b": 2.0}
    found = int8_noise(view, placement, thresholds, images, {"c": 1.0}, silent)
    assert list(found) == ["a", "c"]
    for name in found:
        assert found[name] == pytest.approx(alone(view, name, thresholds, images), rel=1e-4)


def alone(view, name, thresholds, images):
    """Noise over signal of a node, by the whole graph with that node alone in int8."""
    answers = raw_answers(view)
    others = {layer.index for layer in place_int8(view).nodes}
    nodes = view.model.graph.node
    keep = {node_name(nodes[i]): "float" for i in others if node_name(nodes[i]) != name}
    # A skip branch held as int8 is noise of its own.
    placement = dataclasses.replace(place_int8(view, keep=keep), residuals=())
    quantized = insert_qdq(view, placement, thresholds)

    def run(model, x):
        data = with_outputs(model, answers).SerializeToString()
        found = OnnxRuntimeBackend(data, optimize=False).run({"x": x})
        return {answer: value.astype(np.float64) for answer, value in found.items()}

    total = 0.0
    for x in images:
        clean, noisy = run(view.model, x), run(quantized, x)
        for answer in answers:
            varies = clean[answer] - clean[answer].mean(axis=(2, 3), keepdims=True)
            wrong = noisy[answer] - clean[answer]
            total += np.square(wrong).sum() / np.square(varies).sum()
    return total / len(images) / len(answers)


def branching_view():
    """Six layers, two answers; one is written before the last layers are reached."""
    rng = np.random.default_rng(8)
    weights = {
        name: rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for name in ("u", "v", "w", "k", "m")
    }
    return view_of(
        "g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) { a = Conv(x, u)\n"
        " b = Relu(a)\n early = Conv(b, v)\n c = Conv(b, w)\n d = Add(b, c)\n e = Conv(d, k)\n"
        " f = Relu(e)\n h = Conv(f, m)\n s = Add(h, b)\n late = Conv(s, u)\n"
        " y = Sigmoid(early)\n z = Sigmoid(late) }",
        **weights,
    )


def run_parts(parts, x, graph_of, **more):
    """Every tensor that leaves a part, with the parts run one after the other."""
    values = {"x": x}
    for part in parts:
        backend = OnnxRuntimeBackend(graph_of(part).SerializeToString())
        feed = {name: values[name] for name in part.inputs}
        values |= backend.run({**feed, **{name: make(part) for name, make in more.items()}})
    return values


def test_the_parts_hold_each_node_once_and_give_what_the_whole_graph_gives():
    view = branching_view()
    placement = place_int8(view)
    thresholds = dict.fromkeys(placement.activations, 4.0)
    parts = parts_of(view, placement, raw_answers(view))
    names = [name for part in parts for name in part.nodes]
    assert names == ["a", "early", "c", "e", "h", "late"]
    assert len(parts) > 1
    assert [answer for part in parts for answer in part.answers] == ["early", "late"]
    x = np.random.default_rng(2).normal(size=(1, 4, 6, 6)).astype(np.float32)
    whole = OnnxRuntimeBackend(with_outputs(view.model, list(view.producer)).SerializeToString())
    exact = {"x": x, **whole.run({"x": x})}

    def chosen(value):
        def make(part):
            return np.full(len(part.nodes), value)

        return run_parts(parts, x, lambda part: part.choice(thresholds), **{CHOICES: make})

    for found in (run_parts(parts, x, lambda part: part.plain()), chosen(False)):
        assert {"early", "late"} <= set(found)
        for name, value in found.items():
            np.testing.assert_allclose(value, exact[name], rtol=1e-5, atol=1e-5)
    assert all(np.abs(chosen(True)[name] - exact[name]).max() > 1e-3 for name in ("early", "late"))


def test_int8_noise_of_every_part_equals_a_graph_with_that_node_quantized_alone():
    view = branching_view()
    placement = place_int8(view)
    thresholds = dict.fromkeys(placement.activations, 4.0)
    rng = np.random.default_rng(6)
    images = [rng.normal(size=(1, 4, 6, 6)).astype(np.float32) for _ in range(2)]
    seen = []
    weights = {"early": 1.0, "late": 1.0}
    noise = int8_noise(view, placement, thresholds, images, weights, lambda *a: seen.append(a))
    assert list(noise) == ["a", "early", "c", "e", "h", "late"]
    assert [done for _, done, _ in seen] == [1, 2, 3, 4, 5, 6]
    for name, value in noise.items():
        assert value == pytest.approx(alone(view, name, thresholds, images), rel=1e-3)


def test_a_part_between_that_does_not_change_is_run_for_one_that_does():
    rng = np.random.default_rng(9)
    layers = [f"p{i}" for i in range(8)]
    chain = " ".join(f"p{i} = Conv(p{i - 1}, w{i})\n" for i in range(1, 8))
    view = view_of(
        "g (float[1,4,6,6] x) => (float[1,4,6,6] y) { side = Conv(x, w8)\n"
        f" p0 = Conv(x, w0)\n {chain} s = Add(side, p7)\n last = Conv(s, w9)\n"
        " y = Sigmoid(last) }",
        **{f"w{i}": (rng.normal(size=(4, 4, 1, 1)) / 2).astype(np.float32) for i in range(10)},
    )
    placement = place_int8(view)
    thresholds = dict.fromkeys(placement.activations, 3.0)
    x = rng.normal(size=(1, 4, 6, 6)).astype(np.float32)
    assert len(parts_of(view, placement, ["last"])) > 2
    noise = int8_noise(view, placement, thresholds, [x], {"last": 1.0}, silent)
    assert list(noise) == ["side", *layers, "last"]
    for name, value in noise.items():
        assert value == pytest.approx(alone(view, name, thresholds, [x]), rel=1e-3)


def wide_view():
    rng = np.random.default_rng(4)
    return view_of(
        "g (float[1,3,9,9] x) => (float[1,256,9,9] y) { a = Conv(x, w)\n b = Relu(a)\n"
        " c = Conv<pads=[1,1,1,1]>(b, v, k)\n y = Sigmoid(c) }",
        w=rng.normal(size=(32, 3, 1, 1)).astype(np.float32),
        v=rng.normal(size=(256, 32, 3, 3)).astype(np.float32),
        k=rng.normal(size=256).astype(np.float32),
    )


def test_a_wide_answer_is_written_through_fewer_channels_and_the_noise_stays():
    view = wide_view()
    placement, thresholds = place_int8(view), {"x": 3.0, "b": 4.0}
    parts = parts_of(view, placement, ["c"])
    x = np.random.default_rng(1).normal(size=(1, 3, 9, 9)).astype(np.float32)
    assert run_parts(parts, x, lambda part: part.plain())["c"].shape == (1, 96, 9, 9)
    assert parts[-1].nodes == ("c",)
    noise = int8_noise(view, placement, thresholds, [x], {"c": 1.0}, silent)
    assert noise["a"] == pytest.approx(alone(view, "a", thresholds, [x]), rel=0.1)
    assert noise["c"] == pytest.approx(alone(view, "c", thresholds, [x]), rel=1e-4)


def test_fewer_channels_keep_the_power_of_what_a_weight_writes():
    rng = np.random.default_rng(5)
    strong = rng.normal(size=(300, 20)) @ rng.normal(size=(20, 500)) * 3
    weight = (strong + rng.normal(size=(300, 500))).astype(np.float32)
    narrow = power_keeping(weight)
    assert narrow.shape == (96, 300)
    vectors = weight @ rng.normal(size=(500, 100)).astype(np.float32)
    ratio = np.square(narrow @ vectors).sum() / np.square(vectors).sum()
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_half_noise_is_infinite_at_an_overflow_and_large_at_an_underflow():
    view = view_of(
        "g (float[1,4] x) => (float[1,4] y) { a = Mul(x, big)\n b = Mul(a, small)\n"
        " c = Mul(b, tiny)\n d = Div(c, tiny)\n y = Relu(d) }",
        big=np.float32(2.0**17),
        small=np.float32(2.0**-13),
        tiny=np.float32(1e-9),
    )
    noise = half_noise(view, [np.float32([[1.1, 2.2, 3.3, 4.4]])], silent)
    assert noise["a"] == math.inf
    # All of the answer is lost, by the node that loses it and by what reads that.
    assert 1 <= noise["c"] < math.inf
    assert 1 <= noise["d"] < math.inf
    # Of what it reads, the range left is not its fault; itself it rounds 11 bits, and c's constant.
    assert noise["b"] < 2.0**-18
    assert noise["y"] < 2.0**-18
    # bfloat16 holds all of them, in 8 bits: half a step in 256, squared.
    coarse = half_noise(view, [np.float32([[1.1, 2.2, 3.3, 4.4]])], silent, BF16)
    assert set(coarse) == set(noise)
    assert 2.0**-26 < max(coarse.values()) < 2.0**-12


def test_half_noise_is_that_at_the_answers_with_the_tensors_of_a_node_rounded_alone():
    rng = np.random.default_rng(5)
    w, x = (rng.normal(size=n).astype(np.float32) for n in ((3, 8), (6, 8)))
    w = w.astype(np.float16).astype(np.float32)
    view = view_of(
        "g (float[6,8] x) => (float[6,3] y) { far = Add(x, large)\n pos = Relu(far)\n"
        " near = Sub(pos, large)\n flat = Gemm<transB=1>(near, w)\n y = Tanh(flat) }",
        large=np.float32(512),
        w=w,
    )

    def short(value, now):
        return value.astype(np.float16).astype(np.float32) if now else value

    def answer(*rounded):
        given = short(x, "x" in rounded)
        far = short(given + np.float32(512), "far" in rounded)
        near = short(far - np.float32(512), "near" in rounded)
        return short((near @ w.T).astype(np.float32), "flat" in rounded).astype(np.float64)

    def share(name):
        exact = answer()
        return np.square(answer(name) - exact).sum() / np.square(exact - exact.mean()).sum()

    noise = half_noise(view, [x], silent)
    expected = {
        "far": share("x") + share("far"),
        "pos": share("far"),
        "near": share("far") + share("near"),
        "flat": share("near") + share("flat"),
    }
    for name, value in expected.items():
        assert noise[name] == pytest.approx(value, rel=0.02), name
    # Where it stands, each rounds its 11 bits; what the answers see differs by far.
    assert noise["far"] > 1e3 * noise["flat"]
    # Behind the answers it is the rounding over the result.
    y = np.tanh(answer())
    assert noise["y"] == pytest.approx(
        np.square(short(y, True) - y).sum() / np.square(y).sum(), rel=0.02
    )


def test_half_noise_where_one_answer_is_made_of_another():
    view = view_of(
        "g (float[1,4] x) => (float[1,4] y, float[1,4] z) { y = Sigmoid(x)\n z = Tanh(y) }"
    )
    noise = half_noise(view, [np.float32([[1.1, 2.2, 3.3, 4.4]])], silent)
    assert set(noise) == {"y", "z"}
    assert all(0 < value < 2.0**-12 for value in noise.values())


# Kept nodes


def test_a_node_kept_float32_takes_its_readers_along():
    view = view_of("g (float[1,4] x) => (float[1,4] y) { a = Relu(x)\n b = Abs(a)\n y = Neg(b) }")
    _, decisions = convert_to_half(view.model, keep={"a": "because"})
    assert [(d.precision, d.reason) for d in decisions] == [
        ("fp32", "because"),
        ("fp32", "reads a, which stays float32"),
        ("fp16", "float arithmetic"),
    ]
