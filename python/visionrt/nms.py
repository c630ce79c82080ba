"""Exact greedy non-maximum suppression on the CPU.

Boxes are visited by score descending, ties by index ascending, and each is kept unless a kept box
of its class has an intersection over union with it greater than the threshold. A NaN score or
coordinate leaves the box out; a box of zero or negative size suppresses nothing. The CUDA back end
gives the same indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visionrt import _core
from visionrt.errors import InputDataError

__all__ = ["nms", "nms_batched"]

IntArray = npt.NDArray[np.int32]


def nms(
    boxes: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_ids: npt.ArrayLike | None = None,
    *,
    iou_threshold: float = 0.45,
    max_det: int = 300,
) -> IntArray:
    """Indices of the boxes of one image that survive, best first.

    Args:
        boxes: [n, 4], x1 y1 x2 y2, read as float32.
        scores: [n], read as float32.
        class_ids: [n] integers; boxes of different classes never suppress each other. None: all
            boxes compete.
        iou_threshold: 0 to 1; a box goes when its overlap is greater than this.
        max_det: at most so many indices come back.

    Returns:
        int32 [k], k <= max_det.

    Raises:
        InputDataError: a wrong shape, a type that is no number, or an option out of its range.
    """
    arrays = (
        _float32(boxes, "boxes"),
        _float32(scores, "scores"),
        _int32(class_ids, "class_ids"),
    )
    try:
        return _core.nms(*arrays, iou_threshold, max_det)
    except (TypeError, ValueError) as error:
        raise _translated(error) from error


def nms_batched(
    boxes: npt.ArrayLike,
    scores: npt.ArrayLike,
    class_ids: npt.ArrayLike | None = None,
    counts: npt.ArrayLike | None = None,
    *,
    iou_threshold: float = 0.45,
    max_det: int = 300,
) -> tuple[IntArray, IntArray]:
    """`nms` of each image of a batch; images do not affect each other.

    Args:
        boxes: [batch, n, 4], x1 y1 x2 y2, read as float32.
        scores: [batch, n], read as float32.
        class_ids: [batch, n] integers, or None.
        counts: [batch] integers: how many of an image's boxes are real. None: all n.
        iou_threshold: as in `nms`.
        max_det: as in `nms`, for each image.

    Returns:
        Indices int32 [batch, max_det], -1 after the last, and their counts int32 [batch].

    Raises:
        InputDataError: as `nms`.
    """
    arrays = (
        _float32(boxes, "boxes"),
        _float32(scores, "scores"),
        _int32(class_ids, "class_ids"),
        _int32(counts, "counts"),
    )
    try:
        return _core.nms_batched(*arrays, iou_threshold, max_det)
    except (TypeError, ValueError) as error:
        raise _translated(error) from error


def _float32(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    array = _numeric(values, name)
    if array.dtype == np.float32:
        return np.ascontiguousarray(array)
    # A value beyond float32 becomes inf, which the rules cover; it is no reason to warn.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _int32(values: npt.ArrayLike | None, name: str) -> IntArray | None:
    if values is None:
        return None
    array = _numeric(values, name)
    if array.dtype == np.int32:
        return np.ascontiguousarray(array)
    as_int = array.astype(np.int32, order="C") if _fits_int32(array) else None
    if as_int is None or not np.array_equal(as_int, array):
        raise InputDataError(
            f"{name} that are whole numbers within int32",
            got=f"{array.dtype} values that are not",
            fix=f"Round {name}, or map them to small integers.",
        )
    return as_int


def _fits_int32(array: npt.NDArray[Any]) -> bool:
    limits = np.iinfo(np.int32)
    return bool(np.all((array >= limits.min) & (array <= limits.max)))


def _numeric(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputDataError(
            f"{name} as one array", got=str(error), fix="Give rows of equal length."
        ) from error
    if array.dtype.kind not in "fiub":
        raise InputDataError(
            f"{name} of numbers",
            got=f"an array of {array.dtype}",
            fix="Convert it to float32, or int32 for class ids.",
        )
    return array


def _translated(error: Exception) -> InputDataError:
    return InputDataError(
        "boxes [n, 4], scores [n] and class_ids [n] of one length, and options in their range",
        got=str(error).splitlines()[0],
        fix="See the docstring of visionrt.nms.",
    )
