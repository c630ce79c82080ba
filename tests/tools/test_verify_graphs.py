"""Verification and the typed graph as a whole: tiny models, then real ones on real photos."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxslim
import pytest
from onnx import numpy_helper
from tiny_models import CLASSES, SIZE, save_pictures, tiny_classifier

from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.table import write_table
from trtconvert.precision import typed_graph
from trtconvert.verify import (
    MaxDrop,
    enforce,
    labels_beside,
    read_labels,
    synthetic_images,
    verify,
)
from visionrt.errors import AccuracyError, InputDataError, ModelError, UsageError
from visionrt.metrics import Agreement
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

TINY = Recipe("classify", "classifier", PreprocessSpec(resize="stretch", size=(SIZE, SIZE)))
EFFICIENTNET = Recipe("classify", "classifier", PreprocessSpec.parse("imagenet,mean=127,std=128"))


@pytest.fixture
def pictures(tmp_path):
    return save_pictures(tmp_path / "pictures", 6)


def data_of(model):
    return model.SerializeToString()


def changed(model, name, change):
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for constant in out.graph.initializer:
        if constant.name == name:
            value = change(numpy_helper.to_array(constant)).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(value, name))
    return out


@cache
def efficientnet(models):
    return onnxslim.slim(onnx.load(models / "efficientnet_lite0.onnx"))


# Verification


def test_a_model_agrees_with_itself(pictures):
    model, calls = data_of(tiny_classifier()), []
    found = verify(model, model, TINY, sorted(pictures.iterdir()), lambda *call: calls.append(call))
    assert (found.metric, found.images, found.agreement) == ("top1", 6, 1.0)
    assert found.cosine == pytest.approx(1.0)
    assert calls[-1] == ("Verifying", 6, 6)
    assert not found.warnings


def test_a_model_that_answers_the_opposite_does_not(pictures):
    model = tiny_classifier()
    other = changed(model, "fc", np.negative)
    found = verify(data_of(model), data_of(other), TINY, sorted(pictures.iterdir()))
    assert found.agreement == 0.0
    assert found.cosine == pytest.approx(-1.0)


def test_a_fixed_batch_is_filled(pictures):
    images = sorted(pictures.iterdir())
    single, batch = data_of(tiny_classifier(batch=1)), data_of(tiny_classifier(batch=3))
    assert verify(batch, batch, TINY, images).agreement == 1.0
    found = verify(single, data_of(tiny_classifier(batch="n")), TINY, images)
    assert found.cosine == pytest.approx(1.0)


def test_labels_count_for_both(pictures):
    model = tiny_classifier()
    other = changed(model, "fc", lambda w: w[::-1])
    images = sorted(pictures.iterdir())
    everything = {p.name: frozenset(range(CLASSES)) for p in images[:4]}
    found = verify(data_of(model), data_of(other), TINY, images, labels=everything)
    assert found.details["labelled"] == 4
    assert found.details["correct_reference"] == found.details["correct_candidate"] == 4
    nothing = {p.name: frozenset([CLASSES]) for p in images}
    found = verify(data_of(model), data_of(other), TINY, images, labels=nothing)
    assert found.details["correct_reference"] == 0


def test_a_broken_image_is_skipped_and_only_broken_ones_are_refused(pictures):
    broken = pictures / "broken.png"
    broken.write_bytes(b"not a picture")
    model = data_of(tiny_classifier())
    found = verify(model, model, TINY, sorted(pictures.iterdir()))
    assert found.images == 6
    assert "broken.png" in found.warnings[0]
    with pytest.raises(InputDataError, match=r"broken\.png"):
        verify(model, model, TINY, [broken])


def test_without_images_outputs_are_compared_on_synthetic_ones():
    model = tiny_classifier()
    found = verify(data_of(model), data_of(model), TINY, [])
    assert (found.metric, found.images) == ("cosine", 0)
    assert found.agreement == pytest.approx(1.0)
    assert found.warnings
    opposite = data_of(changed(model, "fc", np.negative))
    assert verify(data_of(model), opposite, TINY, []).agreement == 0.0


def test_synthetic_images_are_the_same_each_time_and_differ():
    a, b = synthetic_images((20, 30)), synthetic_images((20, 30))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(image.shape == (20, 30, 3) and image.std() > 10 for image in a)
    assert not np.array_equal(a[0], a[1])


def test_outputs_that_are_not_finite_agree_with_nothing(pictures):
    model = tiny_classifier()
    broken = changed(model, "b", lambda b: b * np.inf)
    found = verify(data_of(model), data_of(broken), TINY, sorted(pictures.iterdir()))
    assert any("NaN" in warning for warning in found.warnings)
    assert (found.agreement, found.cosine) == (0.0, 0.0)


def test_labels_are_read_and_wrong_ones_refused(tmp_path, images):
    folder = tmp_path / "photos"
    folder.mkdir()
    assert labels_beside(folder) == {}
    table = tmp_path / "labels.csv"
    table.write_text("file,accepted_class_ids\na.png,1 2\n")
    assert labels_beside(folder) == {"a.png": frozenset({1, 2})}
    for wrong in ("file,other\na,1\n", "file,accepted_class_ids\na.png,cat\n"):
        table.write_text(wrong)
        with pytest.raises(InputDataError, match=r"labels\.csv"):
            read_labels(table)
    with pytest.raises(InputDataError):
        read_labels(tmp_path / "nowhere.csv")
    assert len(labels_beside(images / "labelled")) == 43


# The allowed drop


@pytest.mark.parametrize(
    ("text", "drop", "metric"),
    [
        ("1%", 0.01, None),
        ("0.01", 0.01, None),
        (" 2.5 % ", 0.025, None),
        ("top1=1%", 0.01, "top1"),
        ("map=0.5", 0.5, "box_f1"),
        ("mIoU=.1", 0.1, "pixel"),
        ("0", 0.0, None),
        ("100%", 1.0, None),
    ],
)
def test_max_drop_is_read(text, drop, metric):
    found = MaxDrop.parse(text)
    assert found.drop == pytest.approx(drop)
    assert found.metric == metric


@pytest.mark.parametrize("text", ["", "%", "-1%", "101%", "1.5", "one", "speed=1%", "1%%", "nan"])
def test_a_wrong_max_drop_is_refused(text):
    with pytest.raises(UsageError):
        MaxDrop.parse(text)


def test_enforce_allows_exactly_the_drop():
    enforce(Agreement("top1", 100, 0.99), MaxDrop(0.01))
    enforce(Agreement("top1", 43, 42 / 43), MaxDrop(1 / 43))
    with pytest.raises(AccuracyError, match="98") as caught:
        enforce(Agreement("top1", 100, 0.98), MaxDrop(0.01))
    assert caught.value.exit_code == 4
    with pytest.raises(UsageError, match="top1"):
        enforce(Agreement("top1", 100, 1.0), MaxDrop(0.01, "pixel"))


# The typed graph


def test_fp32_is_the_graph_itself():
    clean = tiny_classifier()
    typed = typed_graph(clean, TINY, "fp32")
    assert typed.model is typed.twin is typed.measured is clean
    assert typed.nodes_by_precision == {"fp32": len(clean.graph.node)}


def test_fp16_keeps_a_float32_twin():
    clean = tiny_classifier()
    before = data_of(clean)
    typed = typed_graph(clean, TINY, "fp16")
    assert typed.twin is clean
    assert typed.twin_precision == "fp32"
    assert data_of(clean) == before
    assert typed.nodes_by_precision == {"fp16": len(clean.graph.node)}


def test_fp16_with_images_keeps_large_tensors_float32(pictures):
    clean = changed(tiny_classifier(), "w", lambda w: w * 3e4)
    options = CalibrationOptions(pictures)
    found = {d.node: d.precision for d in typed_graph(clean, TINY, "fp16", options).decisions}
    assert found["conv"] == found["relu"] == "fp32"
    images = sorted(pictures.iterdir())
    for calibration, agrees in ((None, False), (options, True)):
        typed = typed_graph(clean, TINY, "fp16", calibration)
        result = verify(data_of(clean), data_of(typed.measured), TINY, images)
        assert (not result.warnings) == agrees


def test_int8_reports_calibration_and_every_node(pictures):
    clean, calls = tiny_classifier(), []
    options = CalibrationOptions(pictures, least_snr_db=0)
    typed = typed_graph(clean, TINY, "int8", options, lambda *call: calls.append(call))
    assert typed.nodes_by_precision == {"fp16": 4, "int8": 2}
    assert [d.node for d in typed.decisions] == [n.name for n in clean.graph.node]
    assert typed.calibration.images == 6
    assert typed.calibration.method == "mse"
    assert typed.calibration.seconds > 0
    assert typed.calibration.peak_rss_bytes > 1 << 20
    assert {call[0] for call in calls} == {"Calibrating", "Measuring layers"}
    for model in (typed.model, typed.twin, typed.measured):
        onnx.checker.check_model(model, full_check=True)
    images = sorted(pictures.iterdir())
    result = verify(data_of(clean), data_of(typed.measured), TINY, images)
    assert result.cosine > 0.99


def test_int8_is_the_same_twice_and_from_a_table(pictures, tmp_path):
    clean = tiny_classifier()
    a = typed_graph(clean, TINY, "int8", CalibrationOptions(pictures))
    b = typed_graph(clean, TINY, "int8", CalibrationOptions(sorted(pictures.iterdir())[::-1]))
    assert data_of(a.model) == data_of(b.model)
    table = tmp_path / "ranges.json"
    write_table(table, a.thresholds, "mse")
    c = typed_graph(clean, TINY, "int8", CalibrationOptions(pictures, ranges=table))
    assert data_of(a.model) == data_of(c.model)
    without = typed_graph(clean, TINY, "int8", CalibrationOptions(ranges=table))
    assert without.calibration is None
    assert dict(without.thresholds) == dict(a.thresholds)


def test_noisy_layers_stay_float_and_say_so(pictures):
    options = CalibrationOptions(pictures, least_snr_db=200)
    typed = typed_graph(tiny_classifier(), TINY, "int8", options)
    assert "int8" not in typed.nodes_by_precision
    conv = next(d for d in typed.decisions if d.node == "conv")
    assert "dB" in conv.reason


def test_a_dead_input_stays_float(pictures):
    # A bias far below zero: Relu never lets anything through.
    clean = changed(tiny_classifier(), "b", lambda b: b - 1e6)
    typed = typed_graph(clean, TINY, "int8", CalibrationOptions(pictures, least_snr_db=0))
    head = next(d for d in typed.decisions if d.node == "head")
    assert head.precision == "fp16"
    assert "zero" in head.reason


def test_wrong_requests_are_refused(pictures):
    clean = tiny_classifier()
    with pytest.raises(UsageError, match="fp32"):
        typed_graph(clean, TINY, "fp8")
    for options in (None, CalibrationOptions()):
        with pytest.raises(UsageError, match="calibration"):
            typed_graph(clean, TINY, "int8", options)
    nothing = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["": 17]> g (float[1,3,{SIZE},{SIZE}] x) => '
        f"(float[1,3,{SIZE},{SIZE}] y) {{ y = Relu(x) }}"
    )
    with pytest.raises(ModelError, match="fp16"):
        typed_graph(nothing, TINY, "int8", CalibrationOptions(pictures))


# Real models


def test_efficientnet_in_fp16_gives_the_same_answers(models, images):
    clean = efficientnet(models)
    typed = typed_graph(clean, EFFICIENTNET, "fp16")
    photos = sorted((images / "labelled").iterdir())
    found = verify(data_of(clean), data_of(typed.measured), EFFICIENTNET, photos)
    assert found.agreement >= 0.99
    assert found.cosine > 0.9999


def test_efficientnet_in_int8_builds_and_stays_close(models, images):
    clean = efficientnet(models)
    options = CalibrationOptions(images / "calib", count=32)
    typed = typed_graph(clean, EFFICIENTNET, "int8", options)
    share = typed.flops_by_precision["int8"] / sum(typed.flops_by_precision.values())
    assert share > 0.4
    photos = sorted((images / "labelled").iterdir())
    found = verify(
        data_of(clean),
        data_of(typed.measured),
        EFFICIENTNET,
        photos,
        labels=labels_beside(images / "labelled"),
    )
    # 43 photos: one is 2.3 %. Far below what a wrong axis, zero point or range leaves.
    assert found.agreement >= 0.85
    assert found.cosine > 0.99
    assert found.details["correct_candidate"] >= found.details["correct_reference"] - 3

    pytest.importorskip("tensorrt_rtx")
    from trtconvert.targets.base import ShapeRange
    from trtconvert.targets.rtx import RtxTarget

    shapes = {"images": ShapeRange.fixed((1, 3, 224, 224))}
    built = RtxTarget(("86",)).build(data_of(typed.model), shapes, None)
    assert len(built.data) > 1 << 20
