"""Errors by layer of whole models, and the command."""

from __future__ import annotations

import json

import pytest
from page_parser import Page
from tiny_models import save, save_pictures, tiny_classifier

from trtconvert.calibration.options import CalibrationOptions
from trtconvert.cli.app import run
from trtconvert.debug.report import DebugOptions, debug
from trtconvert.guess import RecipeFlags

FLAGS = RecipeFlags(task="classify", preprocess="tf")


@pytest.fixture
def folder(tmp_path):
    return save_pictures(tmp_path / "pictures", 3)


@pytest.fixture
def model(tmp_path):
    return save(tiny_classifier(), tmp_path / "tiny.onnx")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_every_node_of_a_model_is_measured(model, folder, precision):
    calibration = CalibrationOptions(images=folder, least_snr_db=0.0)
    report = debug(DebugOptions(model, precision, folder, recipe=FLAGS, calibration=calibration))
    assert report.images == 3
    assert not report.unmapped
    assert [layer.order for layer in report.layers] == list(range(len(report.layers)))
    assert all(layer.status in ("measured", "exact") for layer in report.layers)
    convs = [layer for layer in report.layers if layer.op_type == "Conv"]
    assert [layer.precision for layer in convs] == [precision]
    limits = {"fp16": (50, 90), "int8": (20, 50)}[precision]
    assert limits[0] < convs[0].snr_db < limits[1]


def test_a_fixed_batch_is_filled(tmp_path, folder):
    path = save(tiny_classifier(batch=2), tmp_path / "two.onnx")
    report = debug(DebugOptions(path, "fp16", folder, recipe=FLAGS, count=3))
    assert report.images == 3
    assert all(layer.status in ("measured", "exact") for layer in report.layers)


def test_images_that_cannot_be_read_are_named(model, folder):
    (folder / "broken.png").write_bytes(b"no picture")
    report = debug(DebugOptions(model, "fp16", folder, recipe=FLAGS, count=9))
    assert report.images == 3
    assert any("broken.png" in warning for warning in report.warnings)


@pytest.mark.parametrize("name", ["movenet_lightning", "selfie_segmentation"])
def test_real_models_map_completely(models, images, name):
    flags = {
        "movenet_lightning": RecipeFlags(
            task="keypoints",
            preprocess='{"size": [192, 192], "std": [1, 1, 1], "layout": "nhwc", "dtype": "uint8"}',
        ),
        "selfie_segmentation": RecipeFlags(
            task="segment",
            preprocess='{"resize": "stretch", "size": [256, 256]}',
            head_options={"form": "probability", "layout": "nhwc"},
        ),
    }
    path = models / f"{name}.onnx"
    report = debug(DebugOptions(path, "fp16", images / "labelled", 2, recipe=flags[name]))
    assert not report.unmapped
    assert sum(layer.status == "measured" for layer in report.layers) > 100
    assert all(layer.precision != "unknown" for layer in report.layers)


# the command


def command(*arguments):
    return run(["debug", *map(str, arguments), "--task", "classify", "--preprocess", "tf"])


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_the_command_prints_json_and_a_page(model, folder, tmp_path, capsys):
    arguments = [model, "--precision", "int8", "--calib", folder, "--images", folder]
    assert command(*arguments, "--json", "--html", tmp_path / "page.html") == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert printed["precision"] == "int8"
    assert printed["images"] == 3
    assert printed["unmapped"] == {}
    ratios = [x["snr_db"] for x in printed["layers"] if x["snr_db"] is not None]
    assert ratios == sorted(ratios)
    assert Page((tmp_path / "page.html").read_text()).tags.count("circle") == len(printed["layers"])
    assert command(*arguments, "--json", "--sort", "order", "--top", 2) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [layer["order"] for layer in printed["layers"]] == [0, 1]


def test_the_command_shows_a_table(model, folder, tmp_path, capsys):
    arguments = [model, "--precision", "fp16", "--images", folder]
    assert command(*arguments, "--html", tmp_path / "page.html") == 0
    out = capsys.readouterr().out
    for word in ("SNR dB", "conv", "Conv", "fp16", "page:"):
        assert word in out
    assert command(*arguments, "--quiet") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ((), 2),
        (("--precision", "fp32"), 2),
        (("--precision", "int8"), 2),
        (("--precision", "fp16", "-n", "0"), 2),
        (("--precision", "fp16", "--top", "0"), 2),
        (("--precision", "fp16", "--sort", "size"), 2),
        (("--precision", "fp16", "--images", "nowhere"), 8),
        (("--precision", "fp16", "--html", "no/such/folder/page.html"), 8),
        (("--precision", "int8", "--calib", "nowhere"), 8),
    ],
)
def test_mistakes(model, folder, capsys, more, code):
    assert command(model, "--images", folder, *more) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_a_model_that_is_not_there(folder, tmp_path, capsys):
    assert command(tmp_path / "gone.onnx", "--precision", "fp16", "--images", folder) == 8
    assert "gone.onnx" in capsys.readouterr().err
