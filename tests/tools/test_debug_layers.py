"""Errors by layer of tiny graphs, known by formula."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_models import SIZE, save_pictures

from trtconvert.calibration.reader import ImageReader
from trtconvert.debug.layers import measure_layers, sort_layers
from trtconvert.debug.paired_graph import FIGURES, pair_graphs
from trtconvert.decision import Decision
from trtconvert.graph_view import GraphView
from trtconvert.passes.emulate_half import emulate_half
from trtconvert.passes.half import convert_to_half
from visionrt.spec import PreprocessSpec

# Pixels as they are: RGB, channels first.
RAW = PreprocessSpec(resize="stretch", size=(SIZE, SIZE), mean=(0, 0, 0), std=(1, 1, 1))
SHAPE = [1, 3, SIZE, SIZE]


def graph(nodes, outputs=("y",), constants=(), opset=19, kinds=None):
    """A model with the input ``x`` of SHAPE; every node is (operator, inputs, outputs, …)."""
    made = [
        helper.make_node(op, inputs, results, name=f"node_{results[0]}", **dict(*more))
        for op, inputs, results, *more in nodes
    ]
    kinds = kinds or {}
    return helper.make_model(
        helper.make_graph(
            made,
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
            [
                helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), None)
                for name in outputs
            ],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=9,
    )


def scalar(value):
    return np.float32(value)


@pytest.fixture
def folder(tmp_path):
    return save_pictures(tmp_path / "pictures", 3)


def tensors_of(folder):
    """The pictures as SHAPE tensors, by the runtime's own preprocessing."""
    return list(ImageReader(folder, RAW))


def measure(reference, measured, folder, decisions=()):
    found = measure_layers(reference, measured, decisions, ImageReader(folder, RAW))
    return {layer.node.removeprefix("node_"): layer for layer in found}


def snr_db(reference, other):
    """10·log10 of the powers of a list of arrays, in float64."""
    a, b = (
        np.concatenate([x.astype(np.float64).ravel() for x in side]) for side in (reference, other)
    )
    return 10 * math.log10(float(a @ a) / float((b - a) @ (b - a)))


# known errors


def test_a_constant_offset_by_formula(folder):
    reference = graph([("Mul", ["x", "two"], ["y"])], constants=[("two", scalar(2))])
    measured = graph(
        [("Mul", ["x", "two"], ["inner"]), ("Add", ["inner", "half"], ["y"])],
        constants=[("two", scalar(2)), ("half", scalar(0.5))],
    )
    layer = measure(reference, measured, folder)["y"]
    signal = np.concatenate([2 * x.astype(np.float64).ravel() for x in tensors_of(folder)])
    power = float(signal @ signal)
    assert layer.status == "measured"
    assert layer.snr_db == pytest.approx(10 * math.log10(power / (0.25 * signal.size)), abs=1e-9)
    other = signal + 0.5
    cosine = float(signal @ other) / math.sqrt(power * float(other @ other))
    assert layer.cosine == pytest.approx(cosine, abs=1e-12)
    assert layer.max_error == 0.5
    assert (layer.low, layer.high) == (signal.min(), signal.max())
    # Every input is exact: the error begins here.
    assert layer.loss_db is None


def test_rounding_to_int8_matches_numpy(folder):
    scale = 3.0
    reference = graph([("Identity", ["x"], ["y"])])
    pair = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"]),
        ("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    measured = graph(pair, constants=[("s", scalar(scale)), ("z", np.int8(0))])
    layer = measure(reference, measured, folder)["y"]
    signal = tensors_of(folder)
    # np.round is to even, as the operator's rounding.
    rounded = [np.clip(np.round(x / np.float32(scale)), -128, 127) * scale for x in signal]
    assert layer.snr_db == pytest.approx(snr_db(signal, rounded), abs=1e-9)
    # Whole numbers: rounding to multiples of 3 is off by 1 for two of three of them, so the
    # largest error is 1 (255 is one of the multiples).
    assert layer.max_error == 1.0


def test_float16_matches_numpy_node_by_node(folder):
    reference = graph(
        [
            ("Mul", ["x", "third"], ["a"]),
            ("Add", ["a", "bias"], ["b"]),
            ("Relu", ["b"], ["c"]),
            ("Mul", ["c", "c"], ["y"]),
        ],
        constants=[("third", scalar(1 / 3)), ("bias", scalar(-20.3))],
    )
    typed, decisions = convert_to_half(reference)
    layers = measure(reference, emulate_half(typed), folder, decisions)
    signals, others = {}, {}
    for half, store in ((False, signals), (True, others)):

        def rounded(value, half=half):
            return value.astype(np.float16).astype(np.float32) if half else value

        for pixels in tensors_of(folder):
            x = rounded(pixels)
            a = rounded(x * rounded(np.float32(1 / 3)))
            b = rounded(a + rounded(np.float32(-20.3)))
            c = np.maximum(b, 0)
            for name, value in (("a", a), ("b", b), ("c", c), ("y", rounded(c * c))):
                store.setdefault(name, []).append(value)
    for name, layer in layers.items():
        assert layer.precision == "fp16"
        assert layer.snr_db == pytest.approx(snr_db(signals[name], others[name]), abs=1e-9), name
    loss = layers["c"].loss_db
    assert loss == pytest.approx(layers["b"].snr_db - layers["c"].snr_db, abs=1e-9)


def test_loss_is_below_the_worst_input(folder):
    sides = [("Relu", ["x"], ["a"]), ("Relu", ["x"], ["b"])]
    reference = graph([*sides, ("Add", ["a", "b"], ["y"])])
    offsets = [("one", scalar(1)), ("ten", scalar(10))]
    measured = graph(
        [("Add", ["x", "one"], ["a"]), ("Add", ["x", "ten"], ["b"]), ("Sub", ["a", "b"], ["y"])],
        constants=offsets,
    )
    layers = measure(reference, measured, folder)
    assert layers["a"].snr_db == pytest.approx(layers["b"].snr_db + 20, abs=1e-9)
    assert layers["y"].loss_db == pytest.approx(layers["b"].snr_db - layers["y"].snr_db, abs=1e-9)


def test_images_are_pooled_by_power_not_by_decibels(tmp_path, folder):
    # A dark and a light picture: the mean of two ratios is another number.
    from PIL import Image

    pictures = tmp_path / "two"
    pictures.mkdir()
    for name, grey in (("dark", 1), ("light", 200)):
        Image.new("RGB", (8, 8), (grey,) * 3).save(pictures / f"{name}.png")
    reference = graph([("Identity", ["x"], ["y"])])
    measured = graph([("Add", ["x", "one"], ["y"])], constants=[("one", scalar(1))])
    layer = measure(reference, measured, pictures)["y"]
    assert layer.snr_db == pytest.approx(10 * math.log10((1 + 200**2) / 2), abs=1e-9)
    assert (layer.low, layer.high) == (1, 200)


def test_no_error_at_all_is_exact(folder):
    model = graph([("Relu", ["x"], ["a"]), ("Neg", ["a"], ["y"])])
    layers = measure(model, model, folder)
    assert {layer.status for layer in layers.values()} == {"exact"}
    assert layers["y"].snr_db is None
    assert layers["y"].cosine == 1.0
    assert layers["y"].max_error == 0.0


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_comes_first(folder, value):
    reference = graph(
        [("Relu", ["x"], ["a"]), ("Mul", ["a", "c"], ["y"])], constants=[("c", scalar(2))]
    )
    measured = graph(
        [("Add", ["x", "d"], ["a"]), ("Mul", ["a", "c"], ["y"])],
        constants=[("c", scalar(value)), ("d", scalar(9))],
    )
    layers = measure(reference, measured, folder)
    assert layers["y"].status == "not finite"
    assert (layers["y"].snr_db, layers["y"].max_error) == (None, None)
    assert layers["y"].high == 2 * max(x.max() for x in tensors_of(folder))
    for by in ("snr", "loss", "max"):
        assert sort_layers(list(layers.values()), by)[0] is layers["y"]


def test_an_overflow_in_float16_is_found(folder):
    reference = graph(
        [("Mul", ["x", "large"], ["a"]), ("Mul", ["a", "small"], ["y"])],
        constants=[("large", scalar(1000)), ("small", scalar(1e-3))],
    )
    typed, decisions = convert_to_half(reference)
    layers = measure(reference, emulate_half(typed), folder, decisions)
    # Pixels above 65 leave float16 behind the first node.
    assert layers["a"].status == "not finite"


def test_noise_where_float32_is_silent(folder):
    reference = graph([("Mul", ["x", "zero"], ["y"])], constants=[("zero", scalar(0))])
    measured = graph([("Relu", ["x"], ["y"])])
    layer = measure(reference, measured, folder)["y"]
    assert (layer.status, layer.snr_db, layer.cosine) == ("silent", None, 0.0)
    vanished = measure(measured, reference, folder)["y"]
    assert vanished.snr_db == pytest.approx(0.0, abs=1e-12)
    assert vanished.cosine == 0.0


# mapping


def test_what_cannot_be_mapped_is_said(folder):
    reference = graph(
        [
            ("Relu", ["x"], ["gone"]),
            ("Neg", ["gone"], ["folded"]),
            ("Abs", ["folded"], ["half"]),
            ("Cast", ["half"], ["ids"], {"to": TensorProto.INT64}),
            ("Neg", ["half"], ["y"]),
        ],
        outputs=("y", "ids"),
        kinds={"ids": TensorProto.INT64},
    )
    measured = graph(
        [
            ("Cast", ["x"], ["half"], {"to": TensorProto.FLOAT16}),
            ("Cast", ["half"], ["wide"], {"to": TensorProto.FLOAT}),
            ("Sub", ["folded", "wide"], ["y"]),
        ],
        constants=[("folded", scalar(0))],
    )
    layers = measure(reference, measured, folder, [Decision("node_y", "Neg", "fp16", "why")])
    assert layers["gone"].note == "gone: no tensor of that name in the typed graph"
    assert layers["folded"].note == "folded: a constant in the typed graph"
    assert layers["half"].note == "half: float16 in the typed graph"
    assert {layers[name].status for name in ("gone", "folded", "half")} == {"not mapped"}
    assert layers["ids"].status == "no floats"
    assert layers["y"].status == "exact"
    assert (layers["y"].precision, layers["y"].reason) == ("fp16", "why")
    assert layers["gone"].precision == "unknown"
    last = [layer.node for layer in sort_layers(list(layers.values()), "snr")]
    assert last == [f"node_{name}" for name in ("gone", "folded", "half", "ids", "y")]


def test_outputs_of_one_node_are_pooled(folder):
    split = ("Split", ["x"], ["a", "b"], {"axis": 2, "num_outputs": 2})
    reference = graph([split], outputs=("a", "b"))
    measured = graph(
        [
            ("Split", ["x"], ["a", "b_exact"], {"axis": 2, "num_outputs": 2}),
            ("Add", ["b_exact", "one"], ["b"]),
        ],
        outputs=("a", "b"),
        constants=[("one", scalar(1))],
    )
    layer = measure(reference, measured, folder)["a"]
    signal = np.concatenate([x.astype(np.float64).ravel() for x in tensors_of(folder)])
    assert layer.snr_db == pytest.approx(
        10 * math.log10(float(signal @ signal) / (signal.size / 2)), abs=1e-9
    )


def test_scalars_and_equal_names_inside(folder):
    # The measured graph has names that the comparison would like to give itself.
    reference = graph([("ReduceMean", ["x"], ["y"], {"keepdims": 0})])
    measured = graph(
        [("ReduceMean", ["x"], ["y_measured"], {"keepdims": 0}), ("Neg", ["y_measured"], ["y"])]
    )
    layer = measure(reference, measured, folder)["y"]
    assert layer.snr_db == pytest.approx(10 * math.log10(1 / 4), abs=1e-9)
    assert layer.cosine == pytest.approx(-1.0)


def test_equal_constants_are_stored_once(folder):
    weights = np.ones((3, 3, 1, 1), np.float32)
    conv = [("Conv", ["x", "w"], ["y"])]
    model = graph(conv, constants=[("w", weights)])
    other = graph(conv, constants=[("w", 2 * weights)])
    counts = []
    for measured in (model, other):
        paired = pair_graphs(GraphView(model), GraphView(measured))
        stored = [t for t in paired.model.graph.initializer if tuple(t.dims) == weights.shape]
        counts.append(len(stored))
    assert counts == [1, 2]
    # Twice the output: the error is as large as the signal.
    assert measure(model, other, folder)["y"].snr_db == pytest.approx(0.0, abs=1e-9)


# memory


def chain(count):
    """A chain of Tanh nodes."""
    names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    return graph([("Tanh", [names[i]], [names[i + 1]]) for i in range(count)])


def test_only_numbers_leave_the_graph():
    paired = pair_graphs(GraphView(chain(30)), GraphView(chain(30)))
    assert len(paired.model.graph.output) == 30 * len(FIGURES)
    assert all(not v.type.tensor_type.shape.dim for v in paired.model.graph.output)


def test_memory_does_not_grow_with_the_graph():
    """40 tensors of 8 MiB in both graphs are 640 MiB; few of them may be alive at a time."""
    code = """
import resource, sys
import numpy as np
from onnx import helper, TensorProto
from trtconvert.debug.layers import measure_layers
count, shape = 40, [1, 2, 1024, 1024]
names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
def model(op):
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i in range(count)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
images = [np.ones(shape, np.float32)] * 2
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
layers = measure_layers(model("Tanh"), model("Sin"), (), images)
assert len(layers) == count and all(layer.status == "measured" for layer in layers)
print(peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Alive at a time: the image, two tensors of each graph, and one tensor's forms in float64
    # (five of 16 MiB); with the libraries' own, below half of what all tensors would take.
    assert int(out.stdout) < 320
