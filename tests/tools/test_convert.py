"""The whole conversion on real models, with the real TensorRT-RTX builder."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from onnx import numpy_helper
from tiny_models import save, save_pictures, tiny_classifier

import visionrt
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.cli.app import run
from trtconvert.convert import convert
from trtconvert.guess import RecipeFlags
from trtconvert.options import BuildOptions
from trtconvert.shapes import ShapeFlags
from trtconvert.verify import MaxDrop
from visionrt.engine_file import EngineFile
from visionrt.errors import AccuracyError

DATA = Path(__file__).parents[1] / "data"
MODELS, IMAGES = DATA / "models", DATA / "images"
CLASSIFY = RecipeFlags(task="classify", preprocess="tf")


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory):
    """The engine file of the classifier, and what the command printed."""
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("efficientnet")
    arguments = ["build", MODELS / "efficientnet_lite0.onnx", "--precision", "fp16"]
    arguments += ["--target", "rtx:sm86", "--target", "cpu"]
    arguments += ["--preprocess", "imagenet,mean=127,std=128", "--images", IMAGES / "labelled"]
    arguments += ["--max-drop", "1%", "-o", folder / "a.engine", "--json"]
    printed = pytest.MonkeyPatch()
    lines: list[str] = []
    with printed.context() as patch:
        patch.setattr("sys.stdout.write", lines.append)
        assert run([str(argument) for argument in arguments]) == 0
    return folder / "a.engine", json.loads("".join(lines))


def test_fp16_classifier_for_rtx_and_cpu(efficientnet):
    path, report = efficientnet
    rtx, cpu = report["targets"]
    assert (rtx["backend"], rtx["target"]) == ("tensorrt_rtx", "rtx:sm86")
    assert (cpu["backend"], cpu["target"]) == ("cpu", "cpu")
    # 4.65 million weights of two bytes, and the kernels.
    assert 5e6 < rtx["plan_bytes"] < 12e6
    assert report["verification"]["metric"] == "top1"
    assert report["verification"]["images"] == 43
    assert report["verification"]["agreement"] >= 0.99
    assert report["verification"]["cosine"] > 0.999
    assert report["nodes_by_precision"] == {"fp16": sum(report["nodes_by_precision"].values())}
    with EngineFile(path) as file:
        (plan,) = file.manifest.plans
        assert len(file.read(plan.member)) == rtx["plan_bytes"]
        assert plan.compute_capabilities == ("86",)
        assert file.manifest.twin_precision == "fp32"
        (limits,) = file.manifest.shapes.values()
        assert limits == ((1, 3, 224, 224),) * 3


def test_engine_file_classifies(efficientnet):
    with visionrt.load(efficientnet[0], device="cpu") as model:
        result = model(IMAGES / "coffee.png")
    assert "espresso" in model.recipe.labels[int(result.class_id[0])]


def test_extracted_plan_is_a_plan(efficientnet, tmp_path, capsys):
    assert (
        run(["extract", str(efficientnet[0]), "--plan", "rtx", "-o", str(tmp_path / "x.plan")]) == 0
    )
    assert run(["inspect", str(tmp_path / "x.plan"), "--json"]) == 0
    assert "SM86" in json.loads(capsys.readouterr().out)["header"]


def test_raw_plan_equals_the_one_in_the_engine_file(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    model = save(tiny_classifier(), tmp_path / "tiny.onnx")
    pictures = save_pictures(tmp_path / "pictures")
    for name in ("x.plan", "x.engine"):
        report = convert(
            BuildOptions(
                model,
                tmp_path / name,
                precision="fp16",
                targets=("rtx:sm86",),
                recipe=CLASSIFY,
                shapes=ShapeFlags(batch=4),
                images=pictures,
            )
        )
    raw = (tmp_path / "x.plan").read_bytes()
    assert report.targets[0].plan_bytes == len(raw)
    with EngineFile(tmp_path / "x.engine") as file:
        assert file.read(file.manifest.plans[0].member) == raw
        # Without the cpu target there is no twin, but the typed graph stays for later builds.
        assert file.manifest.twin is None
        assert file.manifest.typed_graph == "typed.onnx"


def test_a_pass_that_breaks_the_model_is_caught(tmp_path, monkeypatch):
    """The reference is the original file, so no pass can hide what it does."""

    def break_weights(model, _warnings):
        head = next(t for t in model.graph.initializer if t.name == "fc")
        head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "fc"))
        return model

    monkeypatch.setattr("trtconvert.clean.slim", break_weights)
    options = BuildOptions(
        save(tiny_classifier(), tmp_path / "tiny.onnx"),
        tmp_path / "x.engine",
        precision="fp32",
        targets=("cpu",),
        recipe=CLASSIFY,
        images=save_pictures(tmp_path / "pictures"),
        max_drop=MaxDrop(0.5),
    )
    with pytest.raises(AccuracyError):
        convert(options)
    assert not (tmp_path / "x.engine").exists()


def test_full_tensorrt_that_is_missing_exits_6_with_the_cure(tmp_path, capsys):
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("TensorRT is installed here")
    arguments = [MODELS / "mobilenet_v2.onnx", "-o", tmp_path / "x.engine", "--target", "tensorrt"]
    assert run([str(argument) for argument in arguments]) == 6
    assert 'pip install "trtconvert[tensorrt]"' in capsys.readouterr().err


def test_progress_is_told_of_every_stage(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    seen: dict[str, list[tuple[int, int]]] = {}
    convert(
        BuildOptions(
            save(tiny_classifier(), tmp_path / "tiny.onnx"),
            tmp_path / "x.engine",
            precision="int8",
            targets=("rtx:sm86", "cpu"),
            recipe=CLASSIFY,
            calibration=CalibrationOptions(save_pictures(tmp_path / "pictures")),
        ),
        lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )
    assert {"Calibrating", "Verifying", "Building rtx:sm86"} <= set(seen)
    for steps in seen.values():
        assert steps[-1][0] == steps[-1][1] > 0


@pytest.mark.parametrize(
    ("name", "preprocess", "metric", "photo"),
    [
        ("ssd_mobilenet_v2_coco", "tf", "box_f1", "chelsea.png"),
        ("selfie_segmentation", "none,std=255", "pixel", "astronaut.png"),
        ("movenet_lightning", "none,resize=letterbox,pad_value=0", "keypoint_f1", "astronaut.png"),
    ],
)
def test_fp16_of_every_task_agrees_with_fp32(name, preprocess, metric, photo, tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(IMAGES / photo, tmp_path / "photos")
    report = convert(
        BuildOptions(
            MODELS / f"{name}.onnx",
            tmp_path / "x.engine",
            precision="fp16",
            targets=("cpu",),
            recipe=RecipeFlags(preprocess=preprocess),
            images=tmp_path / "photos",
        )
    )
    assert report.verification["metric"] == metric
    assert report.verification["agreement"] >= 0.99
    assert report.verification["cosine"] > 0.999
    assert not any("found nothing" in warning for warning in report.warnings)
    with visionrt.load(tmp_path / "x.engine", device="cpu") as model:
        model(IMAGES / photo)
