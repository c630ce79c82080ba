"""The models of ``tests/data`` and the photos that they are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from trtconvert.calibration.reader import ImageReader, image_files
from trtconvert.clean import clean_model
from trtconvert.guess import RecipeFlags, recipe_for
from trtconvert.load import load_model
from trtconvert.shapes import ShapeFlags, input_ranges
from trtconvert.targets.base import ShapeRange
from visionrt.errors import UsageError
from visionrt.recipe import Recipe

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
CALIBRATION = DATA / "images" / "calib"
LABELLED = DATA / "images" / "labelled"

FLAGS = {
    "efficientnet_lite0": RecipeFlags(preprocess="imagenet,mean=127,std=128"),
    "mobilenet_v2": RecipeFlags(preprocess="imagenet"),
    "ssd_mobilenet_v2_coco": RecipeFlags(task="detect", preprocess="tf", labels="coco91"),
    "selfie_segmentation": RecipeFlags(
        task="segment", preprocess="none,std=255", labels=str(DATA / "labels_selfie.txt")
    ),
    "movenet_lightning": RecipeFlags(
        task="keypoints", preprocess="none,resize=letterbox,pad_value=0"
    ),
}


@dataclass(frozen=True)
class Subject:
    """A model to quantize.

    Attributes:
        name: of its file.
        original: the graph as shipped, which every result is compared with.
        clean: the graph that every tool starts from: folded, with a fixed batch of 1.
        recipe: what its answers are.
        shapes: of its inputs, for a builder.
    """

    name: str
    original: ModelProto
    clean: ModelProto
    recipe: Recipe
    shapes: dict[str, ShapeRange]


def read_subject(name: str) -> Subject:
    """One of :data:`FLAGS`."""
    model = load_model(DATA / "models" / f"{name}.onnx").model
    recipe, _ = recipe_for(model, FLAGS[name])
    shapes = input_ranges(model, recipe.preprocess, ShapeFlags())
    return Subject(name, model, clean_model(model, shapes, keep_batch=False), recipe, shapes)


@dataclass(frozen=True)
class Photos:
    """Photos with no overlap: the quantizers see the first list alone, the judge the second."""

    calibration: tuple[Path, ...]
    held_out: tuple[Path, ...]


def split_photos(calibration: int, limit: int | None = None) -> Photos:
    """``calibration`` of the unlabelled photos, at even steps; held out are all others.

    Args:
        calibration: how many to calibrate on.
        limit: judge on that many, at even steps; None for all.

    Raises:
        UsageError: there are not so many.
    """
    unlabelled = image_files(CALIBRATION)
    chosen = _evenly(unlabelled, calibration)
    others = [*image_files(LABELLED), *(path for path in unlabelled if path not in set(chosen))]
    return Photos(tuple(chosen), tuple(_evenly(others, limit or len(others))))


def _evenly(files: Sequence[Path], count: int) -> list[Path]:
    if count > len(files):
        raise UsageError(f"at most {len(files)} photos", got=str(count), fix="Ask for fewer.")
    return [files[i * len(files) // count] for i in range(count)]


def write_tensors(photos: Photos, recipe: Recipe, folder: Path) -> None:
    """The calibration photos as this project preprocesses them, one ``.npy`` file each."""
    folder.mkdir(parents=True)
    reader = ImageReader(photos.calibration, recipe.preprocess, count=len(photos.calibration))
    for index, tensor in enumerate(reader):
        np.save(folder / f"{index:05d}.npy", tensor)
