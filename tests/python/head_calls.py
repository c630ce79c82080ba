"""What the tests of the heads share: recipes, frames, and a call on outputs made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionrt.heads import Frame, head_for
from visionrt.manifest import TensorInfo
from visionrt.options import options_for
from visionrt.preprocess import Preprocessor
from visionrt.recipe import HEADS_BY_TASK, Recipe
from visionrt.spec import PreprocessSpec

SIZE = (64, 96)
TASK_OF = {head: task for task, heads in HEADS_BY_TASK.items() for head in heads}


def recipe_of(
    head: str, *, labels: tuple[str, ...] = (), spec: Any = None, **options: Any
) -> Recipe:
    spec = spec or PreprocessSpec(size=SIZE)
    return Recipe(TASK_OF[head], head, spec, labels, head_options=options)


def infos(outputs: dict[str, np.ndarray]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(n, a.dtype.name, a.shape) for n, a in outputs.items())


def frame_of(recipe: Recipe, height: int = SIZE[0], width: int = SIZE[1]) -> Frame:
    return Frame((height, width), Preprocessor(recipe.preprocess).geometry(height, width))


def decode(
    recipe: Recipe, outputs: dict[str, np.ndarray], *frames: Frame, **options: Any
) -> list[Any]:
    head = head_for(recipe, infos(outputs))
    frames = frames or (frame_of(recipe),)
    return list(head.decode(outputs, frames, options_for(recipe, **options)))


def letterboxed(frame: Frame, xyxy: np.ndarray) -> np.ndarray:
    """Image pixels to tensor pixels, by the definition of the letterbox."""
    (height, width), (tensor_h, tensor_w) = frame.image_hw, SIZE
    scale = min(tensor_h / height, tensor_w / width)
    resized = round(height * scale), round(width * scale)
    offset = (tensor_w - resized[1]) // 2, (tensor_h - resized[0]) // 2
    scales = np.array([resized[1] / width, resized[0] / height] * 2)
    return xyxy * scales + np.array(offset * 2)
