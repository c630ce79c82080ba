"""Pictures, and what a graph makes of them before any decoding, for the tests of real exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import visionrt
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.heads import Frame, head_for
from visionrt.manifest import TensorInfo
from visionrt.options import options_for
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe


def blocks(size_hw: tuple[int, int]) -> np.ndarray:
    """A picture of 8 × 8 colours, as those that the models were evened out on."""
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    return colours.repeat(size_hw[0] // 8, axis=0).repeat(size_hw[1] // 8, axis=1)


def raw_outputs(model: bytes, recipe: Recipe, image: np.ndarray) -> dict[str, np.ndarray]:
    """Of the CPU twin's graph, on the image that the pipeline feeds it."""
    feed = Preprocessor(recipe.preprocess)([image])
    backend = OnnxRuntimeBackend(model)
    (name,) = (info.name for info in backend.inputs)
    outputs = {name: value.copy() for name, value in backend.run({name: feed}).items()}
    backend.close()
    return outputs


def decode(recipe: Recipe, raw: dict[str, np.ndarray], **limits: Any) -> Any:
    """What our head makes of raw outputs, of an image of the input's size."""
    infos = tuple(TensorInfo(name, array.dtype.name, array.shape) for name, array in raw.items())
    size = recipe.preprocess.size
    frame = Frame(size, Preprocessor(recipe.preprocess).geometry(*size))
    (result,) = head_for(recipe, infos).decode(raw, [frame], options_for(recipe, **limits))
    return result


def runs_in_the_twin(engine: Path, image: np.ndarray, wanted: Any, **limits: Any) -> None:
    """Its library may round otherwise, so that scores at the threshold fall on its other side."""
    with visionrt.load(engine, device="cpu") as model:
        found = model(image, **limits)
    assert abs(len(found) - len(wanted)) <= max(2, len(wanted) // 20)


def threshold_for(scores: np.ndarray, count: int) -> float:
    """Between the scores of rank ``count`` and the next, so that both sides agree on them."""
    best = np.sort(scores)[::-1]
    return float((best[count - 1] + best[count]) / 2)
