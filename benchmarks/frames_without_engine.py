"""Frames of a classifier whose engine does nothing: ``frames_without_engine.py FRAMES SIDE…``.

Run under callgrind by ``tests/test_instructions.py``: the counted part of each side lies between
two calls of ``clock_getres``, which nothing else here calls.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.manifest import TensorInfo
from visionrt.model import Model
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

CLASSES = 1000
WARM_UP = 8


class NoEngine:
    """A back end whose outputs are there already."""

    name = "none"
    device = "cpu"
    max_batch: int | None = None

    def __init__(self, side: int) -> None:
        self.inputs = (TensorInfo("image", "float32", (1, 3, side, side)),)
        self.outputs = (TensorInfo("logits", "float32", (1, CLASSES)),)
        logits = np.random.default_rng(0).normal(0, 3, (1, CLASSES)).astype(np.float32)
        self._outputs = {"logits": logits}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The same answer to everything."""
        return self._outputs

    def bind(self, name: str, tensor: NDArray[Any]) -> Callable[[], Mapping[str, NDArray[Any]]]:
        """See :class:`visionrt.backends.base.BindingBackend`."""
        return lambda: self._outputs

    def close(self) -> None:
        """Nothing is held."""


def main() -> None:
    """Run each side."""
    frames = int(sys.argv[1])
    for word in sys.argv[2:]:
        _run(int(word), frames)
    os._exit(0)


def _run(side: int, frames: int) -> None:
    spec = PreprocessSpec.parse(f"imagenet,size={side}x{side}")
    model = Model(Recipe("classify", "classifier", spec), NoEngine(side))
    image = np.random.default_rng(1).integers(0, 256, (side * 5 // 3, side * 2, 3), np.uint8)
    for _ in range(WARM_UP):
        model(image)
    time.get_clock_info("monotonic")
    for _ in range(frames):
        model(image)
    time.get_clock_info("monotonic")


if __name__ == "__main__":
    main()
