"""The preprocess spec is found by trying specs on images, or the user is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from graphs import graph_of, make, stored, value
from onnx import ModelProto, TensorProto
from PIL import Image
from tiny_models import save

from trtconvert.calibration.answers import AnswerReader
from trtconvert.calibration.reader import image_files
from trtconvert.cli.app import run
from trtconvert.evidence import image_source
from trtconvert.guess import RecipeFlags, find_recipe, recipe_for
from trtconvert.load import load_model
from trtconvert.preprocessing.choices import SCALES, with_choice
from trtconvert.preprocessing.decide import MARGINS, decide
from trtconvert.preprocessing.first_layer import plausible_scales
from trtconvert.preprocessing.graph_scale import scale_in_graph
from trtconvert.preprocessing.trials import Trials
from trtconvert.progress import silent
from trtconvert.verify import labels_beside
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import UsageError
from visionrt.spec import PreprocessSpec

DATA = Path(__file__).parents[1] / "data"
LABELLED = DATA / "images" / "labelled"
SIDE = 8

# deciding by paired scores


def paired(gain: float, *, spread: float, images: int = 40) -> dict[str, np.ndarray]:
    """Scores of a and b: a is better by ``gain``, with exactly that spread between images."""
    noise = np.tile([spread, -spread], images // 2)
    base = np.linspace(-3, 0, images)
    return {"a": base + gain + noise, "b": base}


def test_a_gain_beyond_chance_decides():
    found = decide(paired(0.5, spread=0.3), usual="b", labelled=True)
    assert (found.value, found.rivals) == ("a", ())
    assert found.confidence > 0.99


def test_within_chance_and_within_the_margin_the_usual_value_is_taken():
    # Standard error 0.3 / sqrt(39): the bound of b's loss is 0.04 + 1.645 × 0.048 = 0.119.
    found = decide(paired(0.04, spread=0.3), usual="b", labelled=True)
    assert (found.value, found.rivals) == ("b", ())
    assert "within chance" in found.reason
    assert decide(paired(0.04, spread=0.3), usual=None, labelled=True).value == "a"


def test_within_chance_but_beyond_the_margin_is_for_the_user_to_say():
    # 1.645 × 1.5 / sqrt(39) = 0.395 may be lost either way.
    found = decide(paired(0.1, spread=1.5), usual="b", labelled=True)
    assert found.rivals
    assert found.confidence < 0.95


def test_the_bound_is_where_the_formula_says():
    error = 1 / np.sqrt(39)
    for factor, asks in ((0.99, False), (1.01, True)):
        spread = factor * MARGINS[True] / 1.645 / error
        assert bool(decide(paired(0.0, spread=spread), usual=None, labelled=True).rivals) is asks


def test_one_value_left_needs_no_comparison():
    found = decide({"a": np.zeros(12)}, usual=None, labelled=False)
    assert (found.value, found.confidence, found.rivals) == ("a", 1.0, ())


# what the graph says


def scaled(*nodes, dtype=TensorProto.FLOAT, **constants) -> ModelProto:
    shape = [1, 3, SIDE, SIDE]
    weights = [stored(name, np.array(array, np.float32)) for name, array in constants.items()]
    weights.append(stored("w", np.ones((1, 3, 1, 1), np.float32)))
    conv = make("Conv", [nodes[-1].output[0] if nodes else "x", "w"], ["y"])
    out = [value("y", [1, 1, SIDE, SIDE])]
    return graph_of([*nodes, conv], weights, inputs=[value("x", shape, dtype)], outputs=out)


def test_scales_written_in_the_graph():
    keras = scaled(
        make("Mul", ["x", "k"], ["a"]), make("Sub", ["a", "m"], ["b"]),
        make("Div", ["b", "s"], ["c"]),
        k=1 / 255, m=np.reshape([0.485, 0.456, 0.406], (3, 1, 1)),
        s=np.reshape([0.229, 0.224, 0.225], (3, 1, 1)),
    )  # fmt: skip
    assert scale_in_graph(keras) == "0…255"
    half = scaled(make("Mul", ["x", "k"], ["a"]), make("Sub", ["a", "m"], ["b"]), k=2.0, m=1.0)
    assert scale_in_graph(half) == "x / 255"
    pixels = scaled(
        make("Cast", ["x"], ["a"], to=TensorProto.FLOAT), make("Div", ["a", "k"], ["b"]),
        dtype=TensorProto.UINT8, k=127.5,
    )  # fmt: skip
    assert scale_in_graph(pixels) == "0…255"


def test_scales_that_the_graph_does_not_say():
    assert scale_in_graph(scaled()) is None
    tiny = scaled(make("Mul", ["x", "k"], ["a"]), k=1e-6)
    assert scale_in_graph(tiny) is None
    inverse = scaled(make("Div", ["k", "x"], ["a"]), k=1.0)
    assert scale_in_graph(inverse) is None


def test_a_first_layer_that_would_explode_or_vanish_is_ruled_out():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(3)]
    base = PreprocessSpec(size=(SIDE, SIDE), resize="stretch")
    specs = {name: with_choice(base, name, "rgb", "stretch") for name in SCALES}
    model = scaled()
    # Sums of three channels: standard deviations of some 130 for pixels, and 0.5 to 4 otherwise.
    kept = plausible_scales(model, specs, images)
    assert set(kept) == {"x / 255", "x / 127.5 - 1", "ImageNet's mean and std"}
    weights = model.graph.initializer[-1]
    weights.CopyFrom(stored("w", np.full((1, 3, 1, 1), 0.005, np.float32)))
    assert set(plausible_scales(model, specs, images)) == {"0…255", "minus ImageNet's mean"}
    weights.CopyFrom(stored("w", np.zeros((1, 3, 1, 1), np.float32)))
    assert set(plausible_scales(model, specs, images)) == set(SCALES)


# a model that is right by construction: p(class 1) = sigmoid(8 R - 4), R in 0…1


def redness(folder: Path, *, images: int = 64, seed: int = 0) -> Path:
    weights = [
        stored("w", np.array([[0, 0, 0], [8, 0, 0]], np.float32)),
        stored("b", np.array([0, -4], np.float32)),
    ]
    nodes = [
        make("GlobalAveragePool", ["x"], ["p"]),
        make("Flatten", ["p"], ["f"]),
        make("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    inputs = [value("x", ["n", 3, SIDE, SIDE])]
    model = graph_of(nodes, weights, inputs=inputs, outputs=[value("y", ["n", 2])])
    save(model, folder / "red.onnx")
    rng = np.random.default_rng(seed)
    lines = ["file,accepted_class_ids,accepted_names"]
    (folder / "photos").mkdir()
    for index in range(images):
        red, green, blue = rng.integers(0, 256, 3)
        chance = 1 / (1 + np.exp(4 - 8 * red / 255))
        picture = np.full((SIDE, SIDE, 3), (red, green, blue), np.uint8)
        Image.fromarray(picture).save(folder / "photos" / f"{index}.png")
        lines.append(f"{index}.png,{int(rng.random() < chance)},x")
    (folder / "photos" / "labels.csv").write_text("\n".join(lines))
    return folder / "red.onnx"


def test_labelled_images_settle_scale_and_colour_and_build_takes_the_recipe(tmp_path, capsys):
    model = redness(tmp_path)
    photos, recipe = str(tmp_path / "photos"), tmp_path / "recipe.json"
    arguments = ["guess", str(model), "--task", "classify", "--images", photos]
    assert run([*arguments, "-o", str(recipe), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(recipe.read_text())
    spec = found["recipe"]["preprocess"]
    assert (spec["color"], spec["mean"], spec["std"]) == ("rgb", [0] * 3, [255] * 3)
    # Whole pictures of one colour look alike however they are cut: the usual one is taken.
    assert spec["resize"] == "crop"
    for key in ("color", "mean", "resize"):
        assert found["reasons"][f"preprocess.{key}"]
        assert 0.9 <= found["confidence"][f"preprocess.{key}"] <= 1
    engine = str(tmp_path / "red.engine")
    build = ["build", str(model), "-o", engine, "--target", "cpu", "--precision", "fp32", "-q"]
    assert run([*build, "--recipe", str(recipe)]) == 0
    assert run(["extract", engine, "--manifest"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == found["recipe"]
    # Without the file, build finds the same by the images that it verifies on.
    assert run([*build, "--task", "classify", "--images", photos]) == 0
    assert run(["extract", engine, "--manifest"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["preprocess"] == spec


def test_images_that_do_not_settle_it_ask_with_the_choices(tmp_path, capsys):
    model = redness(tmp_path, images=14)
    arguments = ["guess", str(model), "--task", "classify", "--images", str(tmp_path / "photos")]
    assert run(arguments) == 2
    message = capsys.readouterr().err
    assert "--preprocess" in message
    assert " or " in message
    for path in sorted((tmp_path / "photos").glob("*.png"))[:4]:
        path.unlink()
    assert run(arguments) == 2
    assert "at least 12 images" in capsys.readouterr().err


def test_flags_win_over_a_recipe_file(tmp_path, capsys):
    model = redness(tmp_path, images=1)
    recipe = tmp_path / "recipe.json"
    base = ["guess", str(model), "--task", "classify", "--preprocess", "tf", "--confidence", "0.5"]
    assert run([*base, "-o", str(recipe), "-q"]) == 0
    given = ["guess", str(model), "--recipe", str(recipe), "--preprocess", "none", "--json"]
    assert run(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipe"]["preprocess"]["std"] == [1, 1, 1]
    assert found["recipe"]["confidence"] == 0.5
    assert found["reasons"]["confidence"] == "--recipe"
    assert found["reasons"]["preprocess"] == "--preprocess"
    recipe.write_text("[1]")
    assert run(given) == 2
    assert "a recipe in" in capsys.readouterr().err


# the real models

RIGHT = {
    "efficientnet_lite0": {"mean": [127] * 3, "std": [128] * 3},
    "mobilenet_v2": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
}
PLANTED = {
    "colours swapped": {"color": "bgr"},
    "not divided": {"mean": [0] * 3, "std": [1] * 3},
    "wrong mean": {"mean": [0] * 3},
    "stretched": {"resize": "stretch", "interpolation": "cv2"},
    "letterboxed": {"resize": "letterbox", "interpolation": "cv2"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_planted_wrong_specs_rank_below_the_right_one(name):
    model = load_model(DATA / "models" / f"{name}.onnx").model
    recipe, _ = recipe_for(model, RecipeFlags(preprocess="imagenet"))
    right = recipe.preprocess.replace(**RIGHT[name])
    specs = {"right": right} | {key: right.replace(**wrong) for key, wrong in PLANTED.items()}
    labels = labels_beside(LABELLED)
    backend = OnnxRuntimeBackend(model.SerializeToString())
    files = [path for path in image_files(LABELLED) if path.name in labels]
    trials = Trials(AnswerReader(backend, recipe), files, labels, silent)
    means = {key: row.mean() for key, row in trials.scores(specs).items()}
    backend.close()
    # Those that are missing were dropped on the way.
    assert trials.dropped.keys() | means.keys() == specs.keys()
    assert "not divided" in trials.dropped
    assert max(means, key=means.__getitem__) == "right"


@pytest.mark.parametrize(
    ("name", "task", "head", "fields"),
    [
        ("ssd_mobilenet_v2_coco", "detect", "ssd",
         {"resize": "stretch", "color": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3}),
        ("movenet_lightning", "keypoints", "keypoints",
         {"resize": "letterbox", "color": "rgb", "pad_value": 0, "dtype": "uint8"}),
        ("selfie_segmentation", "segment", "logits",
         {"resize": "stretch", "color": "rgb", "mean": [0] * 3, "std": [255] * 3}),
    ],
)  # fmt: skip
def test_the_other_real_models_need_no_flag(name, task, head, fields):
    model = load_model(DATA / "models" / f"{name}.onnx").model
    found = find_recipe(model, RecipeFlags(), images=image_source(LABELLED))
    assert (found.recipe.task, found.recipe.head) == (task, head)
    spec = found.recipe.preprocess.to_json()
    assert {key: spec[key] for key in fields} == fields
    assert found.confidence.keys() <= found.reasons.keys() | {"preprocess." + k for k in spec}


@pytest.mark.slow
def test_the_whole_search_on_a_real_classifier():
    name = "efficientnet_lite0"
    model = load_model(DATA / "models" / f"{name}.onnx").model
    found = find_recipe(model, RecipeFlags(), images=image_source(LABELLED))
    spec = found.recipe.preprocess
    # The near equal that is tried: a grey level and a half apart at either end of the range.
    assert (spec.mean, spec.std) == ((127.5,) * 3, (127.5,) * 3)
    assert (spec.color, spec.resize, spec.crop_ratio) == ("rgb", "crop", 0.875)


def test_an_unlabelled_choice_that_images_cannot_settle_is_asked_for(tmp_path):
    model = load_model(redness(tmp_path, images=14)).model
    files = sorted((tmp_path / "photos").glob("*.png"))
    with pytest.raises(UsageError, match="--preprocess"):
        find_recipe(model, RecipeFlags(task="classify"), images=image_source(files))
