"""Calibration: the reader, runs on a graph, layer errors, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper
from PIL import Image

from trtconvert.calibration.collect import Collector, sampling_step, with_outputs
from trtconvert.calibration.equalizing import channel_peaks
from trtconvert.calibration.histogram import Histogram
from trtconvert.calibration.layer_errors import measure_layer_errors
from trtconvert.calibration.options import METHODS, CalibrationOptions
from trtconvert.calibration.peaks import measure_peaks
from trtconvert.calibration.ranges import threshold
from trtconvert.calibration.reader import MOST_IMAGES, ImageReader
from trtconvert.graph_view import GraphView
from trtconvert.passes.equalize import ChannelGroup
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize_weights import dequantized_weight, scale_for
from trtconvert.progress import silent
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError, ModelError
from visionrt.spec import PreprocessSpec

SPEC = PreprocessSpec(resize="stretch", size=(8, 8), std=(1, 1, 1))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(6):
        pixels = rng.integers(0, 256, (9 + index, 11, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


def small_view(batch="N"):
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 19]> g (float[{batch},3,8,8] x) => '
        f"(float[{batch},5] y) {{\n c = Conv<pads=[1,1,1,1]>(x, w, b)\n r = Relu(c)\n"
        " p = GlobalAveragePool(r)\n f = Flatten(p)\n y = MatMul(f, m) }"
    )
    rng = np.random.default_rng(1)
    shapes = {"w": (4, 3, 3, 3), "b": (4,), "m": (4, 5)}
    for name, shape in shapes.items():
        value = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return GraphView(model)


# Reader


def test_images_are_read_sorted_and_again(folder):
    reader = ImageReader(folder, SPEC)
    assert [p.name for p in reader.files] == [f"{i}.png" for i in range(6)]
    first, second = list(reader), list(reader)
    assert all(tensor.shape == (1, 3, 8, 8) for tensor in first)
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))


def test_the_order_of_a_list_does_not_matter(folder):
    files = sorted(folder.glob("*.png"))
    assert ImageReader(files[::-1], SPEC).files == files


def test_count_takes_even_steps_and_is_a_demand(folder):
    reader = ImageReader(folder, SPEC, count=3)
    assert [p.name for p in reader.files] == ["0.png", "2.png", "4.png"]
    with pytest.raises(InputDataError, match="7 images") as caught:
        ImageReader(folder, SPEC, count=7)
    assert caught.value.exit_code == 8


def test_a_large_folder_is_sampled(tmp_path):
    for index in range(MOST_IMAGES + 44):
        (tmp_path / f"{index:04}.png").write_bytes(b"")
    reader = ImageReader(tmp_path, SPEC)
    assert len(reader) == MOST_IMAGES
    assert int(reader.files[-1].stem) > MOST_IMAGES


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("file\n")
    for wrong in (tmp_path, tmp_path / "nowhere", []):
        with pytest.raises(InputDataError):
            ImageReader(wrong, SPEC)


def test_an_unreadable_image_is_skipped_and_named(folder):
    (folder / "2.png").write_bytes(b"not a picture")
    reader = ImageReader(folder, SPEC)
    assert len(list(reader)) == 5
    assert len(reader) == 5
    assert len(reader.warnings()) == 1
    assert "2.png" in reader.warnings()[0]


def test_only_unreadable_images_are_refused(tmp_path):
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(b"not a picture")
    with pytest.raises(InputDataError, match=r"0\.png"):
        list(ImageReader(tmp_path, SPEC))


def test_a_last_batch_that_is_not_full_is_filled_up(folder):
    batches = list(ImageReader(folder, SPEC, batch=4))
    assert [b.shape[0] for b in batches] == [4, 4]
    np.testing.assert_array_equal(batches[1][1], batches[1][3])


# Runs on a graph


def collect(view, tensors, images, progress=silent, **options):
    collector = Collector(view, tensors, **options)
    collector.add(images, progress)
    return collector.plain


def test_collected_histograms_equal_a_run_by_hand(folder):
    view = small_view()
    reader = ImageReader(folder, SPEC)
    calls = []
    got = collect(view, ["x", "f"], reader, lambda *call: calls.append(call))
    images = np.concatenate(list(reader)).astype(np.float64)
    w, b = view.array("w").astype(np.float64), view.array("b").astype(np.float64)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    conv = np.einsum("nchwij,ocij->nohw", windows, w) + b[:, None, None]
    pooled = np.maximum(conv, 0).mean(axis=(2, 3))
    assert got["x"].peak == images.max()
    assert got["f"].peak == pytest.approx(pooled.max(), rel=1e-5)
    assert calls[-1] == ("Calibrating", 6, 6)


def test_a_sample_keeps_the_peak_and_meets_every_column(folder):
    view, reader = small_view(), ImageReader(folder, SPEC)
    whole = collect(view, ["x", "r"], reader, silent)
    some = collect(view, ["x", "r"], reader, silent, most_values=20)
    for name, histogram in some.items():
        assert histogram.peak == whole[name].peak
        assert histogram.limit == whole[name].limit
        assert 0 < histogram.counts.sum() + histogram.zeros <= 20 * len(reader)
    for shape, most in (((1, 8, 16, 16), 100), ((1, 3, 7, 15), 9), ((5, 1), 2), ((), 1)):
        step = sampling_step(shape, most)
        visited = np.arange(0, int(np.prod(shape)), step)
        assert len(visited) <= most
        width = shape[-1] if shape else 1
        if len(visited) >= width:
            assert set(visited % width) == set(range(width))


def test_lots_add_up_to_all_images(folder):
    view, reader = small_view(), ImageReader(folder, SPEC)
    whole = collect(view, ["x", "r"], reader)
    collector = Collector(view, ["x", "r"])
    collector.add(reader.of(reader.files[3:]), silent)
    collector.add(reader.of(reader.files[:3]), silent)
    for name, histogram in collector.plain.items():
        assert histogram.peak == whole[name].peak
        np.testing.assert_array_equal(histogram.counts, whole[name].counts)


@pytest.mark.parametrize("batch", [1, 4])
def test_divided_histograms_are_those_of_the_quotients(folder, batch):
    view, reader = small_view(batch), ImageReader(folder, SPEC, batch=batch)
    factor = np.float32([1, 0.125, 3])
    collector = Collector(view, ["x"], {"x": factor}, most_values=20)
    collector.add(reader, silent)
    step = sampling_step((3, 8, 8), 20)
    expected, plain = Histogram(), Histogram()
    for tensor in np.concatenate(list(ImageReader(folder, SPEC))):
        quotient = tensor / factor.reshape(3, 1, 1)
        expected.update(quotient.ravel()[::step], float(quotient.max()))
        plain.update(tensor.ravel()[::step], float(tensor.max()))
    for found, want in ((collector.divided["x"], expected), (collector.plain["x"], plain)):
        assert found.peak == want.peak
        np.testing.assert_array_equal(found.counts, want.counts)
    assert expected.peak > plain.peak


def test_a_part_with_no_image_that_can_be_read_may_be_no_error(folder):
    (folder / "5.png").write_bytes(b"none")
    reader = ImageReader(folder, SPEC)
    last = reader.files[5:]
    assert list(reader.of(last, may_be_empty=True)) == []
    assert list(reader.skipped) == last
    with pytest.raises(InputDataError, match="an image that can be read"):
        list(reader.of(last))


def test_a_sample_counts_what_lies_at_its_steps(folder):
    view, reader = small_view(), ImageReader(folder, SPEC)
    got = collect(view, ["x"], reader, silent, most_values=20)["x"]
    expected = Histogram()
    for tensor in reader:
        step = sampling_step(tensor.shape, 20)
        expected.update(tensor.ravel()[::step], float(np.abs(tensor).max()))
    np.testing.assert_array_equal(got.counts, expected.counts)
    assert got.zeros == expected.zeros


@pytest.mark.parametrize("peak", [np.nan, np.inf])
def test_a_peak_that_is_not_finite_is_refused_though_the_sample_is(peak):
    with pytest.raises(ModelError, match="NaN or infinity"):
        Histogram().update(np.ones(3, np.float32), peak)


def test_some_images_are_taken_at_even_steps_and_share_what_was_skipped(folder):
    reader = ImageReader(folder, SPEC)
    some = reader.some(3)
    assert some.files == reader.files[::2]
    assert reader.some(99).files == reader.files
    reader.skipped[reader.files[0]] = "broken"
    assert reader.files[0] not in reader.some(5).files
    assert len(some) == 2


def test_ranges_do_not_depend_on_the_order_of_images(folder):
    view = small_view()
    reader = ImageReader(folder, SPEC)
    backwards = ImageReader(folder, SPEC)
    backwards.files.reverse()
    a = collect(view, ["x", "f"], reader, silent)
    b = collect(view, ["x", "f"], backwards, silent)
    for name, histogram in a.items():
        np.testing.assert_array_equal(histogram.counts, b[name].counts)


@pytest.mark.parametrize("most_values", [10**6, 20])
def test_ranges_do_not_depend_on_the_batch_size(folder, most_values):
    one = None
    for batch in (1, 2, 4, 6):  # 4 does not divide the six images
        view, reader = small_view(batch), ImageReader(folder, SPEC, batch=batch)
        found = collect(view, ["x", "r"], reader, silent, most_values=most_values)
        one = one or found
        for name, histogram in found.items():
            assert histogram.peak == one[name].peak
            assert histogram.zeros == one[name].zeros
            np.testing.assert_array_equal(histogram.counts, one[name].counts)
            for method in METHODS:
                options = CalibrationOptions(folder, method=method)
                assert threshold(histogram, options) == threshold(one[name], options)


def test_layer_errors_equal_numpy(folder):
    view = small_view()
    placement = place_int8(view)
    assert [view.model.graph.node[q.index].op_type for q in placement.nodes] == ["Conv", "MatMul"]
    thresholds = {"x": 200.0, "f": 300.0}
    reader = ImageReader(folder, SPEC)
    errors = measure_layer_errors(view, placement, thresholds, reader, silent)
    images = np.concatenate(list(reader)).astype(np.float64)
    step = float(scale_for(200.0))
    rounded = np.clip(np.rint(images / step), -128, 127) * step
    w = view.array("w")
    outputs = []
    for x, weight in ((rounded, dequantized_weight(w, 0)), (images, w)):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        outputs.append(np.einsum("nchwij,ocij->nohw", windows, weight.astype(np.float64)))
    error = outputs[0] - outputs[1]
    mean = error.mean(axis=(0, 2, 3))
    scale = np.abs(outputs[1]).max()
    np.testing.assert_allclose(errors[0].channel_mean, mean, atol=1e-5 * scale)
    signal = outputs[1] + view.array("b")[:, None, None]
    noise = np.square(error).mean(axis=(0, 2, 3)) - mean**2
    want = 10 * np.log10(np.square(signal).mean(axis=(0, 2, 3)).sum() / noise.sum())
    assert errors[0].snr_db == pytest.approx(want, abs=0.05)
    assert errors[placement.nodes[1].index].channel_mean.shape == (5,)


def clipped_view(batch):
    """Tensors that reach further below zero than above, and some that cannot."""
    model = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 19]> g (float[{batch},3,8,8] x) => (float y)'
        " <float w = {-0.01}, float low = {-3.0}, float zero = {0.0}, float high = {1.0}> {\n"
        " a = Mul(x, w)\n b = Clip(a, low, high)\n c = Clip(a, zero, high)\n d = Clip(a, , low)\n"
        " e = Relu(d)\n f = Sum(b, c, d, e)\n y = ReduceSum<keepdims=0>(f) }"
    )
    return GraphView(model)


@pytest.mark.parametrize("batch", [1, 4])
def test_peaks_are_the_largest_magnitudes(folder, batch):
    view, reader = clipped_view(batch), ImageReader(folder, SPEC, batch=batch)
    tensors = list("abcdef")
    model = with_outputs(view.model, ["x", *tensors]).SerializeToString()
    runs = [OnnxRuntimeBackend(model, optimize=False).run({"x": tensor}) for tensor in reader]
    want = {n: np.concatenate([np.abs(run[n]) for run in runs]) for n in ("x", *tensors)}
    assert want["b"].max() > max(run["b"].max() for run in runs) + 1
    found = measure_peaks(view, reader, silent)
    factor = np.float32([2, 0.25, 1])
    collector = Collector(view, tensors, dict.fromkeys(tensors, factor), most_values=7)
    collector.add(reader, silent)
    group = ChannelGroup((), (), tuple(range(3)), (), 3)
    channels = channel_peaks(view, [group], reader, silent)
    for name in tensors:
        assert found[name] == collector.plain[name].peak == want[name].max()
        quotients = want[name] / factor.reshape(3, 1, 1)
        assert collector.divided[name].peak == quotients.max()
    assert set(channels) == {"x", "a"}
    for name, peaks in channels.items():
        np.testing.assert_array_equal(peaks, want[name].max(axis=(0, 2, 3)))


def test_histograms_that_are_let_go_of_are_not_counted(folder):
    view, reader = small_view(), ImageReader(folder, SPEC)
    factor = np.float32([1, 0.125, 3])
    whole = Collector(view, ["x", "r"], {"x": factor})
    whole.add(reader, silent)
    collector = Collector(view, ["x", "r"], {"x": factor})
    collector.add(reader.of(reader.files[:3]), silent)
    collector.keep([collector.divided["x"], collector.plain["r"]])
    collector.add(reader.of(reader.files[3:]), silent)
    assert (list(collector.plain), list(collector.divided)) == (["r"], ["x"])
    for found, want in (
        (collector.plain["r"], whole.plain["r"]),
        (collector.divided["x"], whole.divided["x"]),
    ):
        assert (found.peak, found.zeros) == (want.peak, want.zeros)
        np.testing.assert_array_equal(found.counts, want.counts)


# Memory


def test_memory_does_not_grow_with_the_number_of_images(models, images):
    """Peak resident set of a fresh process: 48 images may take 10 % more than 12.

    The 48 are the 12 four times over, since the largest photo counts, however many there are.
    """
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        import onnx, onnxslim
        from trtconvert.calibration.options import CalibrationOptions
        from trtconvert.precision import typed_graph
        from visionrt.recipe import Recipe
        from visionrt.spec import PreprocessSpec
        spec = PreprocessSpec.parse('{"resize": "stretch", "size": [256, 256]}')
        recipe = Recipe("segment", "logits", spec)
        clean = onnxslim.slim(onnx.load(sys.argv[1]))
        photos = sorted(Path(sys.argv[2]).iterdir())[:12] * int(sys.argv[3])
        options = CalibrationOptions(photos)
        report = typed_graph(clean, recipe, "int8", options).calibration
        assert report.images == 12 * int(sys.argv[3])
        print(report.peak_rss_bytes)
    """)
    path = os.pathsep.join(str(Path(p).resolve()) for p in sys.path if p)

    def peak(times):
        model = str(models / "selfie_segmentation.onnx")
        command = [sys.executable, "-c", script, model, str(images / "calib"), str(times)]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(done.stdout)

    few, many = peak(1), peak(4)
    assert many < 1.1 * few
