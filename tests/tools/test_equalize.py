"""Evening out channels: the same function, tighter ranges, and only where it pays."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper
from tiny_models import save_pictures

import trtconvert.calibration.equalizing as equalizing
from trtconvert.calibration.collect import with_outputs
from trtconvert.calibration.equalizing import calibrated, channel_peaks, with_factors
from trtconvert.calibration.holdout import split_for_tuning
from trtconvert.calibration.noise_budget import least_snr_db, over_budget, spare
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.reader import ImageReader
from trtconvert.calibration.table import read_factors, read_table, table_bytes
from trtconvert.graph_view import GraphView
from trtconvert.passes.equalize import (
    MOST,
    channel_factors,
    equalize,
    find_groups,
    spared_noise_db,
)
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import insert_qdq
from trtconvert.passes.uint8 import with_uint8_activations
from trtconvert.precision import typed_graph
from trtconvert.progress import silent
from trtconvert.search.answers import raw_answers
from trtconvert.search.noise import AnswerNoise
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import UsageError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

HEADER = '<ir_version: 9, opset_import: ["": 19]>\n'
RNG = np.random.default_rng(11)
# An inverted residual: full, depthwise and full convolutions, a sum, and another reader.
BLOCK = (
    "g (float[1,3,8,8] x) => (float[1,5,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, wa, ba)\n"
    " b = Conv(a, wb, bb)\n c = Clip(b, lo, hi)\n"
    " d = Conv<pads=[1,1,1,1], group=6>(c, wd, bd)\n e = Clip(d, lo, hi)\n f = Conv(e, wf, bf)\n"
    " s = Add(a, f)\n y = Conv(s, wy) }"
)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def block(*, low=0.0, high=6.0, spread=1.0):
    """The block's view; output channels of its convolutions differ by up to ``spread``."""
    sizes = np.float32(spread) ** -np.linspace(0, 1, 6, dtype=np.float32)
    constants = {
        "wa": normal(4, 3, 3, 3),
        "ba": normal(4),
        "wb": normal(6, 4, 1, 1) * sizes.reshape(6, 1, 1, 1),
        "bb": normal(6) * sizes,
        "wd": normal(6, 1, 3, 3) / sizes.reshape(6, 1, 1, 1),
        "bd": normal(6),
        "wf": normal(4, 6, 1, 1),
        "bf": normal(4),
        "wy": normal(5, 4, 1, 1),
        "lo": np.float32(low),
        "hi": np.float32(high),
    }
    model = onnx.parser.parse_model(HEADER + BLOCK)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return GraphView(model)


def run(model, x, name="y", optimize=True):
    backend = OnnxRuntimeBackend(with_outputs(model, [name]).SerializeToString(), optimize=optimize)
    return backend.run({"x": x})[name].astype(np.float64)


def peaks_of(view, x):
    nodes = view.model.graph.node
    read = {nodes[i].input[0] for group in find_groups(view) for i in group.readers}
    return {name: np.abs(run(view.model, x, name)).max(axis=(0, 2, 3)) for name in read}


def test_groups_end_at_convolutions_and_join_over_sums():
    groups = {group.tensors: group for group in find_groups(block())}
    assert set(groups) == {("a", "f", "s"), ("b", "c"), ("d", "e")}
    stream = groups["a", "f", "s"]
    assert (stream.writers, stream.readers, stream.clips) == ((0, 5), (1, 7), ())
    assert groups["b", "c"].readers == groups["d", "e"].writers == (3,)
    assert groups["b", "c"].clips == (2,)


@pytest.mark.parametrize(
    "change",
    ["y = Sigmoid(s)", "t = Sigmoid(s)\n z = Conv(s, wy)\n y = Mul(z, t)", "y = Identity(s)"],
)
def test_a_group_that_anything_else_touches_is_left_alone(change):
    source = block()
    text = BLOCK.replace("y = Conv(s, wy)", change).replace("[1,5,8,8] y", "[1,4,8,8] y")
    model = onnx.parser.parse_model(HEADER + text)
    model.graph.initializer.extend(source.model.graph.initializer)
    constant = next(t for t in model.graph.initializer if t.name == "wy")
    constant.CopyFrom(numpy_helper.from_array(normal(4, 4, 1, 1), "wy"))
    assert {group.tensors for group in find_groups(GraphView(model))} == {("b", "c"), ("d", "e")}


def test_a_group_of_unknown_height_or_width_is_left_alone():
    model = block().model
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[2].dim_param = "height"
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    assert find_groups(GraphView(model)) == []
    sizes[2].dim_value, sizes[0].dim_param = 8, "batch"
    assert len(find_groups(GraphView(model))) == len(find_groups(block()))


@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 2.0), (0.0, 0.5)])
def test_the_function_stays_the_same_for_values_never_seen(low, high):
    view = block(low=low, high=high, spread=100.0)
    groups = find_groups(view)
    peaks = peaks_of(view, normal(1, 3, 8, 8))
    factors = {i: channel_factors(view, group, peaks) for i, group in enumerate(groups)}
    model = equalize(view, factors, groups)
    onnx.checker.check_model(model, full_check=True)
    # Ten times what the factors were made from: every bound is met.
    x = normal(1, 3, 8, 8) * 10
    want = run(view.model, x)
    # Some hundred float32 roundings on the way to a result, each of the largest value.
    assert np.abs(run(model, x) - want).max() < 300 * 2.0**-24 * np.abs(want).max()


def test_depthwise_inputs_get_ranges_closer_together():
    view = block(spread=50.0)
    groups = find_groups(view)
    x = normal(1, 3, 8, 8)
    position = next(i for i, group in enumerate(groups) if group.tensors == ("b", "c"))
    before = np.abs(run(view.model, x, "c")).max(axis=(0, 2, 3))
    factor = channel_factors(view, groups[position], {"c": before})
    after = np.abs(run(equalize(view, {position: factor}, groups), x, "c")).max(axis=(0, 2, 3))
    assert before.max() / before.min() > 5
    assert after.max() == pytest.approx(before.max(), rel=1e-5)
    shares = (before / before.max()) ** 0.25
    np.testing.assert_allclose(after / after.max(), shares, rtol=1e-5)


def test_factors_stay_within_bounds_and_dead_channels_alone():
    view = block()
    group = next(g for g in find_groups(view) if g.tensors == ("b", "c"))
    peaks = np.array([6.0, 1e-9, 0.0, 3.0, 6.0, 6.0])
    factors = channel_factors(view, group, {"c": peaks})
    assert factors.dtype == np.float32
    np.testing.assert_allclose(factors, [1, 1 / MOST, 1, 0.5**0.75, 1, 1])
    assert (channel_factors(view, group, {"c": np.zeros(6)}) == 1).all()


# Where it pays


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_pictures(tmp_path_factory.mktemp("equalize"), 18)


SPEC = PreprocessSpec(resize="stretch", size=(8, 8), mean=(128,) * 3, std=(64,) * 3)


def test_it_is_done_where_it_pays_and_not_where_it_does_not(pictures):
    reader = ImageReader(pictures, SPEC)
    uneven = block(spread=300.0)
    weights = dict.fromkeys(raw_answers(uneven), 1.0)
    view, factors, histograms = calibrated(uneven, reader, CalibrationOptions(), weights, silent)
    assert view is not uneven
    assert set(factors) == {"a", "b", "d"}
    found = calibrated(view, reader, CalibrationOptions(), weights, silent)
    assert found.view is view
    assert not found.factors
    # What the evened graph computes is what was counted, on every image.
    assert set(histograms) == set(found.histograms)
    for name, histogram in histograms.items():
        assert histogram.peak == pytest.approx(found.histograms[name].peak, rel=1e-5)
        counted = [h.counts.sum() + h.zeros for h in (histogram, found.histograms[name])]
        assert counted[0] == counted[1]
    plain = calibrated(uneven, reader, CalibrationOptions(equalization=False), weights, silent)
    assert plain.view is uneven
    assert not plain.factors
    again = with_factors(uneven, factors)
    assert again.model.SerializeToString() == view.model.SerializeToString()


def test_a_group_whose_rare_channels_reach_further_on_other_images_is_left_out(
    pictures, monkeypatch
):
    reader = ImageReader(pictures, SPEC)
    uneven = block(spread=300.0)
    weights = dict.fromkeys(raw_answers(uneven), 1.0)
    peaks = equalizing.channel_peaks
    rare = np.argsort(peaks(uneven, find_groups(uneven), reader, silent)["c"])[-2]

    def with_a_rare_channel(*args):
        found = peaks(*args)
        # A hundredth of what other images will show.
        found["c"][rare] /= 100
        return found

    monkeypatch.setattr(equalizing, "channel_peaks", with_a_rare_channel)
    monkeypatch.setattr(equalizing, "_MOST_LEFT", 1e9)  # whether the rest pays is another test's
    found = calibrated(uneven, reader, CalibrationOptions(), weights, silent)
    assert "b" not in found.factors
    assert "a" in found.factors


def test_factors_survive_the_table(pictures, tmp_path):
    recipe = Recipe(task="segment", head="logits", preprocess=SPEC)
    model = block(spread=300.0).model
    first = typed_graph(model, recipe, "int8", CalibrationOptions(pictures, least_snr_db=0))
    assert first.channel_factors
    path = tmp_path / "ranges.json"
    path.write_bytes(table_bytes(first.thresholds, "mse", factors=first.channel_factors))
    assert read_table(path, list(first.thresholds))[1] == "mse"
    options = CalibrationOptions(pictures, ranges=path, least_snr_db=0)
    second = typed_graph(model, recipe, "int8", options)
    assert second.model.SerializeToString() == first.model.SerializeToString()
    path.write_text(
        path.read_text().replace('"channel_factors": {', '"channel_factors": {"q": [0],')
    )
    with pytest.raises(UsageError, match="factors"):
        read_factors(path)


def test_noise_is_measured_no_further_than_it_is_sure_to_exceed(pictures, monkeypatch):
    view = block(spread=300.0)
    noise = AnswerNoise(view, ImageReader(pictures, SPEC), dict.fromkeys(raw_answers(view), 1.0))
    runs = []
    run = OnnxRuntimeBackend.run
    monkeypatch.setattr(OnnxRuntimeBackend, "run", lambda *args: runs.append(args) or run(*args))
    placement = place_int8(view)
    quantized = insert_qdq(view, placement, dict.fromkeys(placement.activations, 4.0))
    whole = noise(quantized)
    assert len(runs) == 18
    assert noise(quantized, most=whole * 1.001) == whole
    assert len(runs) == 36
    assert whole / 8 < noise(quantized, most=whole / 8) < whole
    assert len(runs) < 36 + 18


def test_where_factors_would_spare_little_nothing_more_is_measured(pictures, monkeypatch):
    even = block(spread=1.0)
    groups = find_groups(even)
    reader = ImageReader(pictures, SPEC)
    peaks = channel_peaks(even, groups, reader, silent)
    factors = [channel_factors(even, group, peaks) for group in groups]
    spared = [d for g, f in zip(groups, factors, strict=True) for d in spared_noise_db(even, g, f)]
    assert 0 < np.mean(spared) < 3.5

    def unexpected(*args):
        raise AssertionError("a noise was measured")

    monkeypatch.setattr(equalizing, "AnswerNoise", unexpected)
    found = calibrated(even, reader, CalibrationOptions(), {}, silent)
    assert found.view is even


def test_spared_noise_is_what_a_convolution_adds_up():
    view = block(spread=30.0)
    for group in find_groups(view):
        factors = RNG.uniform(0.1, 1, group.channels).astype(np.float32)
        for index, decibels in zip(
            group.readers, spared_noise_db(view, group, factors), strict=True
        ):
            node = view.model.graph.node[index]
            weight = view.array(node.input[1])
            groups_of_node = group.channels // weight.shape[1]
            per_group = len(weight) // groups_of_node
            before = after = 0.0
            for row in range(len(weight)):
                for column in range(weight.shape[1]):
                    power = float(np.square(weight[row, column], dtype=np.float64).sum())
                    channel = row // per_group * weight.shape[1] + column
                    before += power
                    after += power * float(factors[channel]) ** 2
            assert decibels == pytest.approx(10 * np.log10(before / after), rel=1e-4)


def test_factors_are_not_judged_where_no_image_apart_can_be_read(tmp_path):
    images = save_pictures(tmp_path, 18)
    uneven = block(spread=300.0)
    weights = dict.fromkeys(raw_answers(uneven), 1.0)
    files = ImageReader(images, SPEC).files
    for path in split_for_tuning(files)[1]:
        path.write_bytes(b"no image")
    found = calibrated(uneven, ImageReader(images, SPEC), CalibrationOptions(), weights, silent)
    assert found.view is uneven
    assert not found.factors


# The budget


def test_the_noise_that_is_left_fits_the_budget_at_the_least_cost():
    noise = {"a": 1e-2, "b": 1e-3, "c": 1e-3, "d": 1e-5}
    cost = {"a": 1e6, "b": 10.0, "c": 1e3, "d": 10.0}
    assert over_budget(noise, cost, 0) == []
    assert over_budget(noise, cost, 10) == []
    # 30 dB: all but 1e-3 must go, and layer 3 need not.
    kept = over_budget(noise, cost, 30)
    assert sum(noise[i] for i in noise if i not in kept) <= 1e-3
    assert "a" in kept
    assert "b" in kept
    # 2.01e-3 are left without the noisy one: 26.97 dB. The cheap ones before it are taken back.
    assert over_budget(noise, cost, 26.5) == ["a"]


def test_what_is_spare_is_spent_on_the_noisiest_that_fit():
    noise = {"a": 1e-2, "b": 1e-2, "c": 1e-3, "d": 1e-9}
    cost = {"a": 1.0, "b": 2.0, "c": 1.0, "d": 1.0}
    flops = {"a": 30, "b": 90, "c": 60, "d": 5, "outside": 10}
    assert spare(noise, cost, flops, ["outside"], 100) == ["a", "c"]
    assert spare(noise, cost, flops, ["outside", "a"], 39) == []
    # What is left is quiet enough without d.
    assert spare(noise, cost, flops, ["outside"], 200) == ["a", "b", "c"]
    assert spare(noise, cost, flops, ["outside", "a", "b", "c"], 10**6) == []


def test_boxes_and_masks_and_classes_ask_for_their_own_noise():
    heads = {"classify": "classifier", "detect": "ssd", "segment": "logits", "keypoints": "simcc"}
    limits = {task: least_snr_db(task, head) for task, head in heads.items()}
    assert limits["detect"] < limits["keypoints"] < limits["classify"] < limits["segment"]
    others = [least_snr_db("instances", "proto_mask"), least_snr_db("obb", "obb")]
    assert others == [limits["detect"]] * 2
    centres = [least_snr_db("detect", "centernet"), least_snr_db("keypoints", "centerface")]
    assert max(centres) < limits["detect"]


# The CPU twin's form


def test_uint8_activations_give_the_same_numbers(pictures):
    recipe = Recipe(task="segment", head="logits", preprocess=SPEC)
    options = CalibrationOptions(pictures, least_snr_db=0, least_total_snr_db=0)
    typed = typed_graph(block().model, recipe, "int8", options)
    kinds = {t.data_type for t in typed.twin.graph.initializer}
    assert onnx.TensorProto.UINT8 in kinds
    assert onnx.TensorProto.UINT8 not in {t.data_type for t in typed.model.graph.initializer}
    x = normal(1, 3, 8, 8) * 4
    back = onnx.ModelProto()
    back.CopyFrom(typed.twin)
    for constant in back.graph.initializer:
        if constant.data_type == onnx.TensorProto.UINT8:
            constant.CopyFrom(numpy_helper.from_array(np.array(0, np.int8), constant.name))
    del back.graph.value_info[:]
    assert with_uint8_activations(back).ByteSize() > 0
    want = run(back, x, optimize=False)
    assert (run(typed.twin, x, optimize=False) == want).all()


def test_an_evened_out_graph_builds_for_rtx(pictures):
    pytest.importorskip("tensorrt_rtx")
    from trtconvert.targets.base import ShapeRange
    from trtconvert.targets.rtx import RtxTarget

    recipe = Recipe(task="segment", head="logits", preprocess=SPEC)
    options = CalibrationOptions(pictures, least_snr_db=0, least_total_snr_db=0)
    typed = typed_graph(block(spread=300.0).model, recipe, "int8", options)
    assert typed.channel_factors
    assert typed.nodes_by_precision["int8"] == 5
    # Per channel, a Clip is a Relu and a Min.
    assert "Min" in {node.op_type for node in typed.model.graph.node}
    shapes = {"x": ShapeRange.fixed((1, 3, 8, 8))}
    built = RtxTarget(("86",)).build(typed.model.SerializeToString(), shapes, None)
    assert built.data
