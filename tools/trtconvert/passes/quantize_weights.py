"""Symmetric int8 scales and values, as ``QuantizeLinear`` computes them.

Weights: ``q = clip(round_half_even(w / scale), -127, 127)``; without -128, so that the range is
the same on both sides. Scales are float16 numbers, so that a float16 graph and a float32 graph
hold the same integers, and never below float16's smallest normal: a smaller one would flush to
zero on a GPU.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from trtconvert.graph_view import GraphView
from trtconvert.weights import WeightFile, is_aside

QMAX = 127
SCALE_MIN = float(np.finfo(np.float16).smallest_normal)
_SCALE_MAX = float(np.finfo(np.float16).max)
# Shares of a channel's largest weight that are tried as its clipping point.
_CLIP_GRID = (1.0, 0.995, 0.99, 0.98, 0.97, 0.96, 0.94, 0.92, 0.88, 0.8, 0.7)
_Int8 = tuple[NDArray[np.int8], NDArray[np.float32]]
# One build types the same weights several times, and choosing their scales takes a while.
_MADE: WeakKeyDictionary[GraphView, dict[tuple[str, int], _Int8]] = WeakKeyDictionary()
# Here by place in the file, where they are kept as well, shape and axis: equal bytes lie in one
# place, whatever shape they have.
_Place = tuple[int, tuple[int, ...], int]
_MADE_IN_FILE: WeakKeyDictionary[
    WeightFile, dict[_Place, tuple[TensorProto, NDArray[np.float32]]]
] = WeakKeyDictionary()
_ROUNDED_IN_FILE: WeakKeyDictionary[WeightFile, dict[_Place, TensorProto]] = WeakKeyDictionary()
# Weights that are worked on at a time: few enough to stay in a core's cache.
_AT_ONCE = 1 << 17


def scale_for(threshold: NDArray[np.floating] | float) -> NDArray[np.float32]:
    """Scales that map ``±threshold`` to ±127, rounded to float16 and kept inside its range.

    Returns:
        float32 array of the shape of ``threshold``, all values above zero.
    """
    raw = np.asarray(threshold, np.float64) / QMAX
    return np.clip(raw, SCALE_MIN, _SCALE_MAX).astype(np.float16).astype(np.float32)


def quantize(values: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.int8]:
    """Integers of weights; ``scale`` broadcasts against them."""
    integers: NDArray[np.int8] = np.clip(np.rint(values / scale), -QMAX, QMAX).astype(np.int8)
    return integers


def quantized_weight(
    weight: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Integers of the shape of ``weight``, and one scale per slice along ``axis``."""
    scales = weight_scales(weight, axis)
    return quantize(weight, _along(scales, axis, weight.ndim)), scales


def dequantized_weight(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """``weight`` after int8: what its DequantizeLinear gives."""
    return _dequantized(*quantized_weight(weight, axis), axis)


def int8_constant(
    view: GraphView, name: str, axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """:func:`quantized_weight` of a constant; made once, and kept as long as what holds it."""
    file, constant = view.weights, view.initializers[name]
    if file is not None and is_aside(constant):
        return _int8_in_file(file, constant, axis)
    made = _MADE.setdefault(view, {})
    if (name, axis) not in made:
        made[name, axis] = quantized_weight(view.array(name).astype(np.float32), axis)
    return made[name, axis]


def _int8_in_file(file: WeightFile, constant: TensorProto, axis: int) -> _Int8:
    made = _MADE_IN_FILE.setdefault(file, {})
    key = file.offset(constant), tuple(constant.dims), axis
    if key not in made:
        integers, scales = quantized_weight(file.array(constant).astype(np.float32), axis)
        made[key] = file.constant(integers, ""), scales
    stored, scales = made[key]
    return file.array(stored), scales


def rounded_constant(view: GraphView, name: str, axis: int, label: str) -> TensorProto:
    """:func:`dequantized_weight` of a constant of a graph, as the constant ``label``."""
    file, constant = view.weights, view.initializers[name]
    if file is None or not is_aside(constant):
        return view.constant(_dequantized(*int8_constant(view, name, axis), axis), label)
    made = _ROUNDED_IN_FILE.setdefault(file, {})
    key = file.offset(constant), tuple(constant.dims), axis
    if key not in made:
        made[key] = file.constant(_dequantized(*int8_constant(view, name, axis), axis), label)
    out = TensorProto()
    out.CopyFrom(made[key])
    out.name = label
    return out


def weight_scales(
    weight: NDArray[np.float32], axis: int, *, clip: bool = True
) -> NDArray[np.float32]:
    """One scale per slice of ``weight`` along ``axis``.

    Args:
        clip: choose the clipping point with the least squared error, instead of the largest
            absolute weight.

    Returns:
        float32 of shape ``(weight.shape[axis],)``.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    peak = np.abs(rows).max(axis=1, keepdims=True).astype(np.float64)
    if not clip:
        return scale_for(peak)[:, 0]
    step = max(_AT_ONCE // max(rows.shape[1], 1), 1)
    starts = range(0, len(rows), step)
    return np.concatenate([_clipped(rows[i : i + step], peak[i : i + step]) for i in starts])


def _clipped(rows: NDArray[np.float32], peak: NDArray[np.float64]) -> NDArray[np.float32]:
    """The scale of each row with the least squared error of its int8 form."""
    best = scale_for(peak)
    least = np.full((len(rows), 1), np.inf)
    wrong = np.empty(rows.shape, np.float32)
    for share in _CLIP_GRID:
        scale = scale_for(peak * share)
        np.rint(np.divide(rows, scale, out=wrong), out=wrong)
        np.multiply(np.clip(wrong, -QMAX, QMAX, out=wrong), scale, out=wrong)
        np.subtract(rows, wrong, out=wrong)
        error = np.einsum("ij,ij->i", wrong, wrong, dtype=np.float64)[:, None]
        best = np.where(error < least, scale, best)
        least = np.minimum(error, least)
    return best[:, 0]


def _dequantized(
    integers: NDArray[np.int8], scales: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    return (integers * _along(scales, axis, integers.ndim)).astype(np.float32)


def _along(scales: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    return scales.reshape([-1 if d == axis else 1 for d in range(rank)])
