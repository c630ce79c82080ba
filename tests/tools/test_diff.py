"""Whole comparisons of two engines."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import onnx
import pytest
from diff_engines import NAMES, SPEC, engine
from onnx import numpy_helper
from PIL import Image
from tiny_models import SIZE, save, tiny_classifier

from trtconvert.diff.compare import DiffOptions, diff
from visionrt.errors import EngineFileError, InputDataError, UsageError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec


def test_an_engine_does_not_differ_from_itself(pair):
    a, _, _, pictures = pair
    report = diff(DiffOptions(a, a, pictures))
    assert report.agreement.agreement == 1.0
    assert (report.flips, report.worst, report.warnings) == ([], [], [])
    assert sum(row["same"] for row in report.classes) == 6


def test_every_answer_flips(pair, tmp_path):
    a, _, c, pictures = pair
    report = diff(DiffOptions(a, c, pictures, worst=4, output=tmp_path / "new" / "report"))
    assert report.agreement.agreement == 0.0
    assert sum(flip["count"] for flip in report.flips) == 6
    assert {(f["from_id"], f["to_id"]) for f in report.flips} <= {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert len(report.worst) == 4
    assert all(" → " in image.reason for image in report.worst)
    drawn = [tmp_path / "new" / "report" / image.picture for image in report.worst]
    assert [path.name[:3] for path in drawn] == ["01-", "02-", "03-", "04-"]
    for path, image in zip(drawn, report.worst, strict=True):
        original = Image.open(image.image)
        assert Image.open(path).size[0] >= 2 * original.size[0]
    stored = json.loads((tmp_path / "new" / "report" / "report.json").read_text())
    assert stored == report.to_json()
    assert stored["agreement"]["metric"] == "top1"


def test_typed_graphs_are_compared_on_request(pair):
    a, b, _, pictures = pair
    assert diff(DiffOptions(a, b, pictures)).agreement.agreement == 1.0
    report = diff(DiffOptions(a, b, pictures, typed=True))
    assert report.agreement.agreement == 0.0
    assert report.a_graph == "typed graph, fp32"


def test_nan_agrees_with_nothing(pair, tmp_path):
    _, _, _, pictures = pair
    recipe = Recipe("segment", "logits", SPEC, labels=("background", "thing"))

    def masks(bias):
        """The same two scores for every pixel."""
        nodes = [
            onnx.helper.make_node("Conv", ["image", "w"], ["flat"]),
            onnx.helper.make_node("Add", ["flat", "b"], ["scores"]),
        ]
        value_info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
        shapes = {"image": [1, 3, SIZE, SIZE], "scores": [1, 2, SIZE, SIZE]}
        constants = {"w": np.zeros((2, 3, 1, 1)), "b": np.reshape(bias, (1, 2, 1, 1))}
        graph = onnx.helper.make_graph(
            nodes,
            "masks",
            [value_info("image", kind, shapes["image"])],
            [value_info("scores", kind, shapes["scores"])],
            [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
        )
        opset = [onnx.helper.make_opsetid("", 17)]
        return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)

    sound = engine(tmp_path / "sound.engine", masks([1, 0]), recipe=recipe)
    broken = engine(tmp_path / "broken.engine", masks([np.nan, np.nan]), recipe=recipe)
    report = diff(DiffOptions(sound, broken, pictures))
    # Every pixel is background in both, by chance.
    assert [row["iou"] for row in report.classes] == [1.0]
    assert report.agreement.agreement == 0.0
    assert any("NaN" in warning for warning in report.warnings)
    assert len(report.worst) == 6
    assert all(image.reason.startswith("NaN") for image in report.worst)
    # A reference that is broken itself says nothing about the candidate.
    assert diff(DiffOptions(broken, broken, pictures)).agreement.agreement == 1.0


def test_a_model_takes_the_engines_recipe(pair, tmp_path):
    a, _, c, pictures = pair
    model = save(tiny_classifier(), tmp_path / "tiny.onnx")
    assert diff(DiffOptions(model, a, pictures)).agreement.agreement == 1.0
    assert diff(DiffOptions(c, model, pictures)).agreement.agreement == 0.0


def test_each_side_preprocesses_in_its_own_way(pair, tmp_path):
    a, _, _, pictures = pair
    spec = PreprocessSpec(resize="stretch", size=(SIZE, SIZE), std=(510, 510, 510))
    half = Recipe("classify", "classifier", spec, labels=("x", *NAMES[1:]))
    other = engine(tmp_path / "half.engine", tiny_classifier(), recipe=half)
    report = diff(DiffOptions(a, other, pictures))
    assert any("preprocess" in warning for warning in report.warnings)
    assert any("ids" in warning for warning in report.warnings)
    shifts = [row["score_shift"] for row in report.classes if row["score_shift"] is not None]
    assert report.flips or any(shifts)


def test_unreadable_images_are_skipped_and_named(pair):
    a, _, _, pictures = pair
    (pictures / "broken.png").write_bytes(b"no picture")
    report = diff(DiffOptions(a, a, pictures))
    assert report.agreement.images == 6
    assert len(report.warnings) == 1
    assert "broken.png" in report.warnings[0]
    for path in pictures.glob("picture*"):
        path.unlink()
    with pytest.raises(InputDataError, match="can be read"):
        diff(DiffOptions(a, a, pictures))


def test_confidence_reaches_both_sides(pair):
    a, _, _, pictures = pair
    report = diff(DiffOptions(a, a, pictures, confidence=1.0))
    assert [row["name"] for row in report.classes] == ["(none)"]


def test_one_image_is_in_memory_at_a_time(pair, tmp_path):
    a, _, c, _ = pair

    def peak(count):
        folder = tmp_path / f"large{count}"
        folder.mkdir()
        for index in range(count):
            Image.new("RGB", (1000, 800), (index, 0, 0)).save(folder / f"{index}.png")
        tracemalloc.start()
        diff(DiffOptions(a, c, folder))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)  # what is made once
    few, many = peak(2), peak(10)
    # An image is 2.4 MB: if they stayed, eight more would show.
    assert many < few + 1_000_000


def test_graphs_that_are_not_there(pair, tmp_path):
    a, _, _, pictures = pair
    only_twin = engine(tmp_path / "twin.engine", tiny_classifier())
    only_typed = engine(tmp_path / "typed.engine", typed=tiny_classifier())
    with pytest.raises(EngineFileError, match="typed graph"):
        diff(DiffOptions(a, only_twin, pictures, typed=True))
    with pytest.raises(EngineFileError, match="CPU twin"):
        diff(DiffOptions(only_typed, a, pictures))


def test_tasks_must_be_the_same(pair, tmp_path):
    a, _, _, pictures = pair
    detector = Recipe("detect", "yolo", SPEC)
    other = engine(tmp_path / "other.engine", tiny_classifier(), recipe=detector)
    with pytest.raises(UsageError, match="one task"):
        diff(DiffOptions(a, other, pictures))
