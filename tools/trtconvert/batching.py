"""Whether a graph with a symbolic batch really takes batches.

Exporters write a symbolic size on the input even where a node inside has a batch of one baked in
(a Reshape to [1, …]). Shape inference does not see it; running two images does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtconvert.shapes import image_input_of
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import ModelError

# Of the largest output; a batch may take other kernels, but no other arithmetic.
_TOLERANCE = 1e-3


def takes_batches(model: ModelProto) -> bool:
    """Whether two images at once give what each gives alone. Runs the model three times.

    Args:
        model: with one image input whose batch, and nothing else, is symbolic.

    Raises:
        ModelError: it does not even run for one image.
    """
    backend = OnnxRuntimeBackend(model.SerializeToString())
    name, shape = image_input_of(model)
    images = _random_images((2, *(int(size) for size in shape[1:])), backend.inputs[0].dtype)
    try:
        alone = [backend.run({name: images[i : i + 1]}) for i in range(2)]
        try:
            together = backend.run({name: images})
        except ModelError:
            return False
    finally:
        backend.close()
    return all(_same(value, [single[key] for single in alone]) for key, value in together.items())


def _random_images(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    # Any values do, as long as the two images differ.
    return pixels.astype(dtype) if dtype == "uint8" else (pixels / 127.5 - 1).astype(dtype)


def worst_difference(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest difference of two arrays of one shape, as a share of the largest value.

    Of integers, the share that differs: class ids may flip at a tie. NaN equals NaN; where one is
    NaN or infinite and the other is not, the difference is infinite.
    """
    if not np.issubdtype(expected.dtype, np.floating):
        return float((expected != got).mean()) if expected.size else 0.0
    wide, other = expected.astype(np.float64), got.astype(np.float64)
    usable = np.isfinite(wide)
    if not np.array_equal(wide[~usable], other[~usable], equal_nan=True):
        return float("inf")
    if not np.isfinite(other[usable]).all():
        return float("inf")
    apart = float(np.abs(wide[usable] - other[usable]).max(initial=0.0))
    scale = float(np.abs(wide[usable]).max(initial=0.0))
    return apart / scale if scale else (0.0 if apart == 0 else float("inf"))


def _same(together: NDArray[Any], alone: list[NDArray[Any]]) -> bool:
    if together.ndim == 0 or any(single.shape[:1] != (1,) for single in alone):
        return False
    expected = np.concatenate(alone)
    if together.shape != expected.shape:
        return False
    return worst_difference(expected, together) <= _TOLERANCE
