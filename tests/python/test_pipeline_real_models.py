"""The pipeline on real models and photos."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from real_models import ASTRONAUT, CHELSEA, COFFEE, RECIPES, ROCKET, model_path, real

from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.results import Detections


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v2"])
def test_classifiers_know_espresso_and_cats(name: str) -> None:
    with real(name) as model:
        coffee, cat = model([COFFEE, CHELSEA])
        assert coffee.best == "espresso"
        assert coffee.confidence[0] > 0.9
        assert "espresso 0.9" in str(coffee)
        assert any("cat" in cat.label(int(c)) for c in cat.class_id[:2])
        assert (np.diff(cat.confidence) <= 0).all()
        assert cat.logits.shape == (1000,)


def test_a_detector_finds_the_cup_the_cat_and_the_astronaut() -> None:
    with real("ssd_mobilenet_v2_coco") as model:
        coffee, cat, astronaut, rocket = model([COFFEE, CHELSEA, ASTRONAUT, ROCKET])
        assert next(row.name for row in coffee) == "cup"
        assert next(row.name for row in cat) == "cat"
        best = next(iter(astronaut))
        assert best.name == "person"
        # The astronaut's face lies in 180…271 x 58…176, so the person's box holds it.
        assert best.xyxy[0] < 180
        assert best.xyxy[1] < 58
        assert best.xyxy[2] > 271
        assert best.xyxy[3] > 176
        assert len(rocket) == 0
        assert set(coffee.class_id) == set(model(COFFEE, classes=None).class_id)
        assert [r.name for r in model(COFFEE, classes=["cup"])] == ["cup"]


def test_a_mask_covers_the_astronaut_and_leaves_the_wall() -> None:
    with real("selfie_segmentation") as model:
        result = model(ASTRONAUT)
        assert result.mask.shape == result.confidence.shape == (512, 512)
        assert result.mask[100:170, 200:250].mean() > 0.99
        assert result.mask[20:200, 330:380].mean() < 0.01
        assert result.confidence[100:170, 200:250].min() > 0.5


def test_a_pose_has_its_nose_where_the_nose_is() -> None:
    with real("movenet_lightning") as model:
        result = model(ASTRONAUT)
        nose = result.keypoints[0, 0]
        assert np.abs(nose[:2] - (221, 121)).max() < 12
        assert nose[2] > 0.4
        assert result.names[0] == "nose"


def test_the_logits_are_the_engines_for_a_tensor_made_by_hand() -> None:
    """The path from photo to logits, against Pillow and NumPy doing the same."""
    with Image.open(COFFEE) as picture:
        width, height = picture.size
        short = round(224 / 0.875)
        scale = short / min(width, height)
        size = (max(short, int(width * scale)), max(short, int(height * scale)))
        resized = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
    crop = resized[top : top + 224, left : left + 224].astype(np.float64)
    tensor = ((crop - 127) / 128).transpose(2, 0, 1)[None].astype(np.float32)
    backend = OnnxRuntimeBackend(model_path("efficientnet_lite0"))
    expected = backend.run({"images": tensor})["logits"][0]
    with real("efficientnet_lite0") as model:
        logits = model(COFFEE).logits
    # Pixels may differ by one grey level at rounding borders; the logits span about 15.
    assert np.abs(logits - expected).max() < 0.05


@pytest.mark.parametrize("name", list(RECIPES))
def test_extreme_shapes_go_all_the_way(name: str) -> None:
    with real(name) as model:
        for shape in ((1, 1), (1, 20000), (20000, 1), (3, 2)):
            result = model(np.full((*shape, 3), 120, np.uint8), confidence=0.01)
            assert result.image_hw == shape
            json.dumps(result.to_json(), allow_nan=False)
            assert result.plot().shape == (*shape, 3)
            if isinstance(result, Detections) and len(result):
                assert result.xyxy.min() >= 0
                assert (result.xyxy.max(axis=0) <= [shape[1], shape[0]] * 2).all()
