"""Memory of a process that predicts images: ``memory.py IMAGES``; prints KiB grown after the 100th.

Every image has another size, as photos have; arrays, so that no file is read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.model import Model
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

GRAPH = Path(__file__).resolve().parents[1] / "tests" / "data" / "models" / "mobilenet_v2.onnx"
SETTLED = 100


def resident_kib() -> int:
    """Resident set of this process. Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError("VmRSS")


def main() -> None:
    """Predict; print."""
    recipe = Recipe("classify", "classifier", PreprocessSpec.parse("imagenet"))
    model = Model(recipe, OnnxRuntimeBackend(GRAPH))
    pixels = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    sizes = np.random.default_rng(1).integers(200, 720, (int(sys.argv[1]), 2))
    settled = 0
    for index, (height, width) in enumerate(sizes):
        model(pixels[:height, :width].copy())
        if index + 1 == SETTLED:
            settled = resident_kib()
    print(resident_kib() - settled)


if __name__ == "__main__":
    main()
