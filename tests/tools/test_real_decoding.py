"""RetinaNet, EfficientDet and YOLOv5 as their libraries export them: built, decoded alike.

Optional: see ``exports.py``. Each library decodes the same raw outputs (``export_decodes.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import MARKS, run_there
from real_outputs import blocks, decode, raw_outputs, runs_in_the_twin, threshold_for

from trtconvert.cli.app import run
from visionrt.engine_file import EngineFile
from visionrt.heads.anchor_options import anchors_from
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

pytestmark = MARKS

ROUNDING = 2.0**-24
# YOLOv5 and torchvision's RetinaNet: nothing suppressed, for what torchvision suppresses depends on
# its clipping boxes first, and what YOLOv5 does on moving classes apart in float32.
_ALL = {"iou": 1.0, "max_det": 10**6}
_EFFDET = {"iou": 0.5, "max_det": 100}


@dataclass(frozen=True)
class Export:
    """What the user must tell, the head and options that are found, and the limits of a call."""

    told: Mapping[str, Any]
    head: str
    options: Mapping[str, Any]
    limits: Mapping[str, Any]
    preprocess: str = "imagenet,resize=stretch"


EXPORTS = {
    "retinanet": Export(
        {"anchors": "retinanet_torchvision"}, "ssd", {"activation": "sigmoid"}, _ALL
    ),
    "efficientdet_lite0": Export({}, "ssd", {"anchors": "efficientdet_lite"}, _EFFDET),
    "efficientdet_d0": Export({}, "ssd", {"anchors": "efficientdet"}, _EFFDET),
    "yolov5_maps": Export({"anchors": "yolov5"}, "yolo_maps", {}, _ALL),
    "yolov5": Export({}, "yolo", {"form": "v5"}, _ALL),
}


def test_anchors_are_those_of_the_libraries(tmp_path: Path) -> None:
    path = tmp_path / "anchors.npz"
    run_there("export_decodes.py", "anchors", path)
    wanted = np.load(path)
    assert len(wanted.files) >= 25
    for key in wanted.files:
        preset, height, width = key.split()
        spec = PreprocessSpec(size=(int(height), int(width)))
        recipe = Recipe("detect", "ssd", spec, head_options={"anchors": preset})
        cy, cx, h, w = (anchors_from(recipe).all() * np.array([*spec.size] * 2)).T
        ours = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
        assert ours.shape == wanted[key].shape, key
        # Float32 corners of up to 2048 pixels on either side, made in up to four steps.
        np.testing.assert_allclose(ours, wanted[key], rtol=0, atol=2048 * 4 * ROUNDING, err_msg=key)


def test_a_retinanet_asks_for_its_anchors(exported: Any, capsys: Any) -> None:
    assert run(["guess", str(exported("retinanet")), "--preprocess", "none"]) == 2
    error = capsys.readouterr().err
    assert "19206 anchors, 9 a cell, for levels 3 to 7" in error
    assert '{"anchors": "retinanet_torchvision"} for torchvision' in error


@pytest.mark.parametrize("name", EXPORTS)
def test_recognised_built_and_decoded_as_its_library_does(
    name: str, exported: Any, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    case = EXPORTS[name]
    path, engine = str(exported(name)), tmp_path / f"{name}.engine"
    # The libraries let one anchor give several classes.
    options = json.dumps({**case.told, "multi_label": True})
    flags = ["--preprocess", case.preprocess, "--head-options", options]
    targets = ["--target", "rtx:sm86", "--target", "cpu"]
    assert run(["build", path, "-o", str(engine), "--precision", "fp16", *targets, *flags]) == 0
    with EngineFile(engine) as file:
        recipe, twin = file.manifest.recipe, bytes(file.read("model.onnx"))
        assert [plan.target for plan in file.manifest.plans] == ["rtx:sm86"]
    assert (recipe.task, recipe.head) == ("detect", case.head)
    assert {**recipe.head_options, **case.options} == dict(recipe.head_options)

    size = recipe.preprocess.size
    image = blocks(size)
    raw = raw_outputs(twin, recipe, image)
    threshold = threshold_for(scores_of(raw), 400)
    np.savez(tmp_path / "raw.npz", **raw)
    path_of_decoded = tmp_path / "decoded.npz"
    run_there("export_decodes.py", name, tmp_path / "raw.npz", path_of_decoded, str(threshold))
    wanted = np.load(path_of_decoded)
    got = decode(recipe, raw, confidence=threshold, **case.limits)
    runs_in_the_twin(engine, image, got, confidence=threshold, **case.limits)
    assert len(got) == len(wanted["boxes"]) > 50
    boxes = np.clip(wanted["boxes"], 0, [size[1], size[0]] * 2)
    theirs = np.lexsort((wanted["scores"], wanted["labels"]))
    ours = np.lexsort((got.confidence, got.class_id))
    np.testing.assert_array_equal(got.class_id[ours], wanted["labels"][theirs])
    # Two sigmoids of a few roundings each, of logits below 16 in size, and a product.
    np.testing.assert_allclose(got.confidence[ours], wanted["scores"][theirs], rtol=64 * ROUNDING)
    # Ten roundings on either side.
    reach = largest_box(raw)
    assert reach < 2e5, "boxes that would hide an error in their anchors"
    np.testing.assert_allclose(got.xyxy[ours], boxes[theirs], rtol=0, atol=20 * ROUNDING * reach)


def scores_of(raw: dict[str, np.ndarray]) -> np.ndarray:
    """Every score of every class, from the outputs' definitions."""
    logits = [value.ravel() for name, value in raw.items() if name.startswith("logits")]
    if logits:
        return sigmoid(np.concatenate(logits))
    if "boxes" in raw:
        rows = raw["boxes"].astype(np.float64)
    else:
        rows = sigmoid(np.concatenate([value.reshape(-1, 85) for value in raw.values()]))
    return (rows[..., 4:5] * rows[..., 5:]).ravel()


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values.astype(np.float64)))


def largest_box(raw: dict[str, np.ndarray]) -> float:
    """Sides and coordinates in pixels are no larger."""
    codes = [value.max() for name, value in raw.items() if name.startswith("codes")]
    # The largest anchor has 512 · 2^(2/3) · √2 pixels; YOLOv5's 373, and gives up to 4 times that.
    return 1150 * float(np.exp(max(codes))) if codes else 4 * 373
