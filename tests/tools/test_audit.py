"""The calibration audit: a wrongly fed model is found, and a rightly fed one is not blamed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import save, save_pictures, tiny_classifier

from trtconvert.calibration.answers import stacked
from trtconvert.calibration.audit import audit, spec_findings
from trtconvert.calibration.feeding import (
    alternatives,
    critical_t,
    spread,
    steadiness,
    t_statistic,
)
from trtconvert.calibration.reader import ImageReader
from trtconvert.calibration.table import table_bytes, write_table
from trtconvert.cli.app import cli, run
from trtconvert.cli.build import options_from
from visionrt.engine_file import EngineFile
from visionrt.errors import UsageError
from visionrt.labels import read_labels
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

DATA = Path(__file__).parents[1] / "data"
LABELLED = DATA / "images" / "labelled"
RECIPES = {
    "mobilenet_v2": Recipe(
        "classify", "classifier", PreprocessSpec.parse("imagenet"), read_labels("imagenet")
    ),
    "efficientnet_lite0": Recipe(
        "classify",
        "classifier",
        PreprocessSpec.parse("imagenet,mean=127,std=128"),
        read_labels("imagenet"),
    ),
    "selfie_segmentation": Recipe(
        "segment",
        "logits",
        PreprocessSpec(resize="stretch", size=(256, 256)),
        head_options={"form": "probability", "layout": "nhwc"},
    ),
    "movenet_lightning": Recipe(
        "keypoints",
        "keypoints",
        PreprocessSpec(size=(192, 192), std=(1, 1, 1), pad_value=0, layout="nhwc", dtype="uint8"),
    ),
    "ssd_mobilenet_v2_coco": Recipe(
        "detect",
        "ssd",
        PreprocessSpec.parse("tf,size=300"),
        read_labels("coco91"),
        head_options={"anchors": "tf_ssd_300"},
    ),
}
CLASSIFIERS = ("mobilenet_v2", "efficientnet_lite0")


# How the model is fed


def test_steadiness_is_own_likeness_less_that_of_others():
    rng = np.random.default_rng(0)
    whole, zoomed = rng.random((2, 5, 3))
    expected = []
    for i in range(5):
        others = [float(np.dot(whole[i], zoomed[j])) for j in range(5) if j != i]
        expected.append(float(np.dot(whole[i], zoomed[i])) - sum(others) / 4)
    assert steadiness(list(whole), list(zoomed)) == pytest.approx(np.array(expected))


def test_answers_of_different_lengths_are_padded():
    rows = stacked([np.ones(1, np.float32), np.ones(3, np.float32)])
    assert rows.tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("count", "interim", "last"),
    [(12, 4.025, 2.718), (24, 3.485, 2.500), (48, 3.273, 2.408), (96, 3.178, 2.366)],
)
def test_critical_t_is_that_of_the_tables(count, interim, last):
    assert critical_t(count, is_last=False) == pytest.approx(interim, abs=0.04)
    assert critical_t(count, is_last=True) == pytest.approx(last, abs=0.04)


def test_t_statistic():
    assert t_statistic(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / (1 / np.sqrt(3)))
    assert t_statistic(np.zeros(4)) == 0.0
    assert t_statistic(np.full(4, -0.5)) == -np.inf


def test_alternatives_are_really_others():
    codes = [a.code for a in alternatives(PreprocessSpec.parse("tf,mean=127,std=128"))]
    # x / 127.5 - 1 is the same within a tenth.
    assert codes == ["color-order", "scale", "scale", "scale", "scale"]
    gray = alternatives(PreprocessSpec(color="gray"))
    assert {a.code for a in gray} == {"scale"}
    movenet = alternatives(RECIPES["movenet_lightning"].preprocess)
    assert [(a.code, a.spec.color) for a in movenet] == [("color-order", "bgr")]
    bgr = alternatives(PreprocessSpec.parse("yolox"))
    assert any(a.spec.mean == (103.53, 116.28, 123.675) for a in bgr)


def test_every_beginning_of_a_spread_is_spread():
    numbers = [int(p.name) for p in spread([Path(str(i)) for i in range(100)])]
    assert sorted(numbers) == list(range(100))
    assert max(np.diff(sorted([-1, *numbers[:12], 100]))) < 20


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The labelled photos, smaller, because decoding them takes longer than asking the model."""
    folder = tmp_path_factory.mktemp("photos")
    for path in LABELLED.iterdir():
        photo = Image.open(path).convert("RGB")
        photo.thumbnail((400, 400))
        photo.save(folder / f"{path.stem}.jpg", quality=95)
    return folder


def audit_of(models, name, folder, count=None, **changes):
    recipe = RECIPES[name]
    recipe = dataclasses.replace(recipe, preprocess=recipe.preprocess.replace(**changes))
    reader = ImageReader(folder, recipe.preprocess, count=count)
    return audit((models / f"{name}.onnx").read_bytes(), recipe, reader)


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"ssd_mobilenet_v2_coco"}))
def test_a_rightly_fed_model_is_not_blamed(models, photos, name):
    assert audit_of(models, name, photos).findings == ()


@pytest.mark.slow
def test_a_rightly_fed_detector_is_not_blamed(models, photos):
    assert audit_of(models, "ssd_mobilenet_v2_coco", photos, 32).findings == ()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_swapped_channels_are_found(models, images, name):
    files = [*LABELLED.iterdir(), *(images / "calib").iterdir()]
    found = audit_of(models, name, files, color="bgr").findings
    assert [f.code for f in found] == ["color-order"]
    assert "RGB than BGR" in found[0].message


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_missing_division_by_255_is_found(models, photos, name):
    found = audit_of(models, name, photos, 36, mean=[0, 0, 0], std=[1, 1, 1]).findings
    assert [f.code for f in found] == ["scale"]


def test_photos_of_one_class_are_found(models, tmp_path):
    """Pieces of one photo, turned so that they are no near-duplicates."""
    photo = Image.open(LABELLED / "explore_world_animals__panda.webp").convert("RGB")
    photo.thumbnail((400, 400))
    rng = np.random.default_rng(0)
    (tmp_path / "pandas").mkdir()
    for index in range(12):
        left, top = rng.uniform(0, 0.3, 2)
        right, bottom = rng.uniform(0.7, 1.0, 2)
        box = (left * photo.width, top * photo.height, right * photo.width, bottom * photo.height)
        piece = photo.crop(tuple(map(int, box)))
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if index % 2 else piece
        piece.save(tmp_path / "pandas" / f"{index:02}.png")
    found = {f.code: f for f in audit_of(models, "mobilenet_v2", tmp_path / "pandas").findings}
    assert "one-class" in found
    assert "panda" in found["one-class"].message
    assert not {"color-order", "scale"} & set(found)


def test_an_audit_is_the_same_each_time(models, photos):
    first = audit_of(models, "mobilenet_v2", photos, 12, std=[1, 1, 1])
    assert first == audit_of(models, "mobilenet_v2", photos, 12, std=[1, 1, 1])
    assert first.findings


# Specs that differ


def test_ranges_of_another_spec_are_found(tmp_path):
    spec = PreprocessSpec.parse("imagenet")
    path = tmp_path / "ranges.json"
    path.write_bytes(table_bytes({"x": 1.0}, "mse", spec))
    assert spec_findings(spec, ranges=path) == []
    (found,) = spec_findings(spec.replace(color="bgr"), ranges=path)
    assert found.code == "spec-differs"
    assert "color rgb instead of bgr" in found.message
    write_table(path, {"x": 1.0}, "mse")
    assert spec_findings(spec, ranges=path) == []
    path.write_text('{"format": "trtconvert-ranges", "version": 1, "preprocess": 3}')
    with pytest.raises(UsageError, match="preprocess"):
        spec_findings(spec, ranges=path)


# The commands


@pytest.fixture
def tiny(tmp_path):
    save(tiny_classifier(), tmp_path / "tiny.onnx")
    save_pictures(tmp_path / "pictures", 6)
    return tmp_path


def build(folder, *more, output="a.engine", preprocess="tf"):
    arguments = ["build", folder / "tiny.onnx", "-o", folder / output, "--task", "classify"]
    arguments += ["--preprocess", preprocess, "--precision", "int8", "--target", "cpu", "--json"]
    return run([str(a) for a in (*arguments, *more)])


def test_a_build_reports_what_the_audit_found(tiny, capsys):
    (tiny / "pictures" / "again.png").write_bytes((tiny / "pictures" / "picture1.png").read_bytes())
    assert build(tiny, "--calib", tiny / "pictures") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["audit"]["images"] == 7
    codes = [f["code"] for f in report["audit"]["findings"]]
    assert codes == ["too-few", "near-duplicates"]
    assert all(f["message"] in report["warnings"] for f in report["audit"]["findings"])
    assert "calibration_subset" not in report


def test_a_build_without_calibration_has_no_audit(tiny, capsys):
    assert build(tiny, "--precision", "fp32", "--images", tiny / "pictures") == 0
    assert "audit" not in json.loads(capsys.readouterr().out)


def test_ranges_remember_their_spec(tiny, capsys):
    assert build(tiny, "--calib", tiny / "pictures") == 0
    with EngineFile(tiny / "a.engine") as file:
        (tiny / "ranges.json").write_bytes(file.read("ranges.json"))
    capsys.readouterr()
    again = ["--ranges", tiny / "ranges.json", "--images", tiny / "pictures"]
    assert build(tiny, *again, output="b.engine") == 0
    assert json.loads(capsys.readouterr().out)["audit"]["findings"] == []
    assert build(tiny, *again, output="c.engine", preprocess="tf,color=bgr") == 0
    (found,) = json.loads(capsys.readouterr().out)["audit"]["findings"]
    assert found["code"] == "spec-differs"


def test_a_build_on_a_covering_subset(tiny, capsys):
    assert build(tiny, "--calib", tiny / "pictures", "--calib-subset", "3") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["calibration"]["images"] == 3
    assert len(report["calibration_subset"]["files"]) == 3
    assert report["calibration_subset"]["pool"] == 6
    assert "farthest-point" in report["calibration_subset"]["how"]
    assert build(tiny, "--calib", tiny / "pictures", "--calib-subset", "7") == 8


def test_the_audit_command(tiny, capsys):
    assert build(tiny, "--calib", tiny / "pictures") == 0
    capsys.readouterr()
    arguments = ["audit", tiny / "tiny.onnx", "--calib", tiny / "pictures", "--task", "classify"]
    arguments += ["--preprocess", "tf,color=bgr", "--engine", tiny / "a.engine"]
    arguments += ["--images", tiny / "pictures", "--calib-subset", "2"]
    assert run([*map(str, arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [f["code"] for f in found["findings"]] == ["spec-differs", "too-few"]
    assert len(found["subset"]["files"]) == 2
    assert run([str(a) for a in arguments]) == 0
    printed = capsys.readouterr().out
    assert "too-few" in printed
    assert "farthest-point" in printed


@pytest.mark.parametrize(
    "flags",
    [
        ["--calib-subset", "4"],
        ["--calib", "d", "--calib-subset", "4", "--calib-images", "4"],
    ],
)
def test_a_subset_needs_a_folder_and_excludes_a_count(flags):
    assert run(["build", "m.onnx", "-o", "x.engine", *flags]) == 2


def test_keep_threshold_is_an_option():
    for flags, expected in (([], False), (["--keep-threshold"], True)):
        context = cli.commands["build"].make_context("build", ["m.onnx", "-o", "x.engine", *flags])
        options = options_from({k: v for k, v in context.params.items() if k != "as_json"})
        assert options.keep_threshold is expected
