"""Ultralytics' own exports are recognised with no flag, built for RTX, and decoded as it does.

Optional: see ``exports.py``. Its NMS decodes the same raw outputs (``export_decodes.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import MARKS, run_there
from real_outputs import blocks, decode, raw_outputs, runs_in_the_twin, threshold_for

from trtconvert.cli.app import run
from visionrt.engine_file import EngineFile

pytestmark = MARKS

ROUNDING = 2.0**-24
MODELS = {
    "yolov8n": ("detect", "yolo"),
    "yolo26n": ("detect", "end2end"),
    "yolo11n-seg": ("instances", "proto_mask"),
    "yolo11n-pose": ("keypoints", "yolo_pose"),
    "yolo11n-obb": ("obb", "obb"),
    "yolo11n-cls": ("classify", "classifier"),
}


@pytest.fixture(params=MODELS)
def built(request: Any, exported: Any, tmp_path: Path) -> tuple[str, Path]:
    """The name of a model, and its engine file."""
    pytest.importorskip("tensorrt_rtx")
    name = request.param
    engine = tmp_path / f"{name}.engine"
    targets = ["--target", "rtx:sm86", "--target", "cpu"]
    path = str(exported(name))
    assert run(["build", path, "-o", str(engine), "--precision", "fp16", *targets]) == 0
    return name, engine


def test_recognised_built_and_decoded_as_it_does(built: tuple[str, Path], tmp_path: Path) -> None:
    name, engine = built
    with EngineFile(engine) as file:
        recipe, twin = file.manifest.recipe, bytes(file.read("model.onnx"))
        assert [plan.target for plan in file.manifest.plans] == ["rtx:sm86"]
    assert (recipe.task, recipe.head) == MODELS[name]
    assert len(recipe.labels) == (1000 if recipe.task == "classify" else 80)
    image = blocks(recipe.preprocess.size)
    raw = raw_outputs(twin, recipe, image)
    if recipe.task == "classify":
        assert decode(recipe, raw).class_id[0] == raw["output0"][0].argmax()
        return
    output = raw["output0"][0]
    best = output[:, 4] if recipe.head == "end2end" else output[4:84].max(axis=0)
    threshold = threshold_for(best.astype(np.float64), 100)
    np.savez(tmp_path / "raw.npz", **raw)
    decoded = tmp_path / "decoded.npz"
    run_there("export_decodes.py", name, tmp_path / "raw.npz", decoded, str(threshold))
    wanted = np.load(decoded)["rows"]
    limits = {"confidence": threshold, "iou": 1.0, "max_det": 10**5}
    got = decode(recipe, raw, **limits)
    runs_in_the_twin(engine, image, got, **limits)
    scores = got.score if recipe.task == "keypoints" else got.confidence
    assert len(scores) == len(wanted) == 100
    boxes = np.clip(wanted[:, :4], 0, 256) if recipe.task != "obb" else wanted[:, :4]
    found = got.xywhr[:, :4] if recipe.task == "obb" else got.xyxy
    ours = matched(found, np.c_[scores, got.class_id], boxes, wanted[:, 4:6])
    atol = 8 * ROUNDING * np.abs(wanted[:, :4]).max()
    np.testing.assert_array_equal(got.class_id[ours], wanted[:, 5])
    np.testing.assert_array_equal(scores[ours], wanted[:, 4])
    if recipe.task == "obb":
        check_turned(got.xywhr[ours], wanted[:, [0, 1, 2, 3, -1]], atol)
    else:
        np.testing.assert_allclose(got.xyxy[ours], boxes, rtol=0, atol=atol)
    if recipe.task == "keypoints":
        points = wanted[:, 6:].reshape(-1, 17, 3)
        atol = 8 * ROUNDING * np.abs(points).max()
        points[..., :2] = np.clip(points[..., :2], 0, 256)
        np.testing.assert_allclose(got.keypoints[ours], points, rtol=0, atol=atol)


def matched(
    boxes: np.ndarray, told: np.ndarray, wanted: np.ndarray, wanted_told: np.ndarray
) -> list[int]:
    """Which of ours is which of theirs: of equal scores and classes, the nearest that is left."""
    left, order = list(range(len(boxes))), []
    for box, row in zip(wanted, wanted_told, strict=True):
        distance = [np.abs(boxes[i] - box).max() + 1e6 * np.abs(told[i] - row).max() for i in left]
        order.append(left.pop(int(np.argmin(distance))))
    return order


def check_turned(got: np.ndarray, wanted: np.ndarray, atol: float) -> None:
    """The same boxes, whichever side comes first: a turn by a right angle then."""
    swapped = wanted[:, 3] > wanted[:, 2]
    sides = np.where(swapped[:, None], wanted[:, [3, 2]], wanted[:, [2, 3]])
    np.testing.assert_allclose(got[:, :4], np.c_[wanted[:, :2], sides], rtol=0, atol=atol)
    turned = got[:, 4] - wanted[:, 4] - swapped * np.pi / 2
    assert np.abs(np.sin(turned)).max() < 16 * ROUNDING
