"""RetinaNet and EfficientDet as their libraries export them: recognised, built, decoded alike.

Optional: see ``exports.py``. Each library decodes the same raw outputs (``export_decodes.py``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import MARKS, run_there

import visionrt
from trtconvert.cli.app import run
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.engine_file import EngineFile
from visionrt.heads.anchor_options import anchors_from
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

pytestmark = MARKS

ROUNDING = 2.0**-24
# What is told by the user, and the anchors that the head ends up with.
MODELS = {
    "retinanet": ({"anchors": "retinanet_torchvision"}, "retinanet_torchvision"),
    "efficientdet_lite0": ({}, "efficientdet_lite"),
    "efficientdet_d0": ({}, "efficientdet"),
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


@pytest.mark.parametrize("name", MODELS)
def test_recognised_built_and_decoded_as_its_library_does(
    name: str, exported: Any, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    told, anchors = MODELS[name]
    path, engine = str(exported(name)), tmp_path / f"{name}.engine"
    # The libraries let one anchor give several classes.
    options = json.dumps({**told, "multi_label": True})
    flags = ["--preprocess", "imagenet,resize=stretch", "--head-options", options]
    targets = ["--target", "rtx:sm86", "--target", "cpu"]
    assert run(["build", path, "-o", str(engine), "--precision", "fp16", *targets, *flags]) == 0
    with EngineFile(engine) as file:
        recipe, twin = file.manifest.recipe, bytes(file.read("model.onnx"))
        assert [plan.target for plan in file.manifest.plans] == ["rtx:sm86"]
    assert (recipe.task, recipe.head) == ("detect", "ssd")
    assert recipe.head_options["anchors"] == anchors

    block = np.ones((recipe.preprocess.size[0] // 8,) * 2 + (1,), np.uint8)
    image = np.kron(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8), block)
    raw = raw_outputs(twin, recipe, image)
    threshold = threshold_for(raw, 400)
    np.savez(tmp_path / "raw.npz", **raw)
    decoded = tmp_path / "decoded.npz"
    run_there("export_decodes.py", name, tmp_path / "raw.npz", decoded, str(threshold))
    wanted = np.load(decoded)
    # What torchvision suppresses depends on its clipping boxes first: here nothing does.
    limits = {"iou": 1.0, "max_det": 10**6} if name == "retinanet" else {"iou": 0.5, "max_det": 100}
    with visionrt.load(engine, device="cpu") as model:
        got = model(image, confidence=threshold, **limits)
    assert len(got) == len(wanted["boxes"]) > 50
    size = recipe.preprocess.size
    boxes = np.clip(wanted["boxes"], 0, [size[1], size[0]] * 2)
    theirs = np.lexsort((*boxes.T, wanted["labels"]))
    ours = np.lexsort((*got.xyxy.T, got.class_id))
    np.testing.assert_array_equal(got.class_id[ours], wanted["labels"][theirs])
    # Two sigmoids of a few roundings each, of logits below 8 in size.
    np.testing.assert_allclose(got.confidence[ours], wanted["scores"][theirs], rtol=32 * ROUNDING)
    # The largest anchor has 512 · 2^(2/3) · √2 pixels, and exp makes it this much larger: ten
    # roundings on either side.
    codes = np.concatenate([value.ravel() for key, value in raw.items() if "codes" in key])
    reach = 1150 * np.exp(codes.max())
    assert reach < 2e5, "boxes that would hide an error in their anchors"
    np.testing.assert_allclose(got.xyxy[ours], boxes[theirs], rtol=0, atol=20 * ROUNDING * reach)


def raw_outputs(model: bytes, recipe: Recipe, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of the CPU twin's graph, on the image that the pipeline feeds it."""
    feed = Preprocessor(recipe.preprocess)([image])
    backend = OnnxRuntimeBackend(model)
    outputs = {name: value.copy() for name, value in backend.run({"image": feed}).items()}
    backend.close()
    return outputs


def threshold_for(raw: dict[str, np.ndarray], count: int) -> float:
    """Between the scores of rank ``count`` and the next, so that both sides agree on them."""
    logits = [value.ravel() for name, value in raw.items() if name.startswith("logits")]
    best = np.sort(np.concatenate(logits).astype(np.float64))[::-1]
    return float(1 / (1 + np.exp(-(best[count - 1] + best[count]) / 2)))
