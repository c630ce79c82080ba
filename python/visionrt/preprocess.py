"""Images to tensor on the CPU, and coordinates back from the tensor to the image.

The runtime, the calibration reader and the evaluator all read images through
:class:`Preprocessor`, so a model sees the same numbers in each. The arithmetic lives in
``csrc/preprocess``; its header states the numerics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt import _core
from visionrt._core import Geometry, PreprocessPlan
from visionrt.errors import InputDataError, UsageError
from visionrt.spec import PreprocessSpec

__all__ = ["Geometry", "Preprocessor", "boxes_to_image", "points_to_image"]

_SOURCE_COLORS = ("bgr", "rgb")
_JPEG_DIVISORS = (8, 4, 2)  # libjpeg-turbo has other scales too, which take longer than these


class Preprocessor:
    """Turns 8-bit images into the model's input tensor, as a :class:`PreprocessSpec` says.

    Immutable to its users; one object may be used from several threads.

    Attributes:
        spec: the spec it was built from.
        plan: the native form of ``spec``, which also queues the CUDA kernels.

    Raises:
        UsageError: the environment variable VISIONRT_CPU_LEVEL names no level.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        _check_cpu_level()
        self.spec = spec
        self.plan = PreprocessPlan(
            resize=spec.resize,
            size_hw=spec.size,
            crop_ratio=spec.crop_ratio,
            interpolation=spec.interpolation,
            color=spec.color,
            mean=spec.mean,
            std=spec.std,
            pad_value=spec.pad_value,
            letterbox_align=spec.letterbox_align,
            layout=spec.layout,
            dtype=spec.dtype,
        )
        # Frames of a camera have one size; one assignment, so threads see a pair that fits.
        self._last: tuple[tuple[int, int], Geometry | None] = (0, 0), None

    def geometry(self, height: int, width: int) -> Geometry:
        """Where an image of ``height`` x ``width`` pixels lands in the tensor.

        Raises:
            InputDataError: a side is below 1 or too long.
        """
        size = (height, width)
        last_size, geometry = self._last
        if size == last_size and geometry is not None:
            return geometry
        try:
            geometry = self.plan.geometry(height, width)
        except ValueError as error:
            raise _translated(error, "Give the sides of a decoded image.") from error
        self._last = size, geometry
        return geometry

    def jpeg_divisor(self, height: int, width: int) -> int:
        """What the sides of a JPEG may be divided by while it is decoded: 1, 2, 4 or 8.

        The largest of them that still gives an image no smaller than the resized one, and one that
        lands on the same pixels of the tensor. What is decoded smaller is averaged over blocks of
        8 x 8 in the frequency domain, so pixels differ from those of a whole decode.
        """
        whole = self.geometry(height, width)
        for divisor in _JPEG_DIVISORS:
            small_h, small_w = -(-height // divisor), -(-width // divisor)
            if small_h < whole.resized_h or small_w < whole.resized_w:
                continue
            small = self.geometry(small_h, small_w)
            if _placement(small) == _placement(whole):
                return divisor
        return 1

    def __call__(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        color: str = "bgr",
        out: NDArray[Any] | None = None,
        threads: int = 1,
    ) -> NDArray[Any]:
        """Fill a tensor from images of any sizes. Blocks; the GIL is released meanwhile.

        Args:
            images: uint8 arrays of shape (height, width, 3), any strides. Rows may be apart by any
                stride at no cost; other strides cost one copy.
            color: channel order of ``images``, ``bgr`` or ``rgb``.
            out: where to write, C-contiguous, of shape ``spec.tensor_shape(len(images))`` and
                dtype ``spec.dtype``. Allocated when None.
            threads: how many threads share the work, the caller's included.

        Returns:
            ``out``, or the new tensor.

        Raises:
            InputDataError: an image or ``out`` has the wrong shape, dtype or strides, ``color`` is
                unknown, or ``threads`` is below 1.
        """
        if color not in _SOURCE_COLORS:
            raise InputDataError(
                "color 'bgr' or 'rgb'", got=repr(color), fix="Name the images' channel order."
            )
        readable = [_with_contiguous_pixels(image, i) for i, image in enumerate(images)]
        if out is None:
            out = np.empty(self.spec.tensor_shape(len(readable)), self.spec.dtype)
        elif not isinstance(out, np.ndarray):
            raise InputDataError(
                "out to be an array",
                got=_described(out),
                fix="Pass a NumPy array, or leave it out.",
            )
        try:
            self.plan.run(readable, out, color, threads)
        except ValueError as error:
            raise _translated(error, "Pass what the preprocess spec asks for.") from error
        return out

    def fill(self, images: list[NDArray[np.uint8]], color: str, out: NDArray[Any]) -> None:
        """:meth:`__call__` without the checks that :mod:`visionrt.image_io` has made already."""
        self.plan.run(images, out, color, 1)


def points_to_image(
    geometry: Geometry, xy: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Map points from tensor pixels to image pixels, clipped to the image.

    Args:
        geometry: of the image the tensor was made from.
        xy: float32 of shape (..., 2), tensor pixels.
        out: where to write, of the same shape; ``xy`` itself is allowed. Allocated when None.

    Returns:
        ``out``: float32 of the same shape; x in [0, image_w], y in [0, image_h]. NaN stays NaN.
    """
    offset = np.array([geometry.offset_x, geometry.offset_y], np.float32)
    scale = np.array([geometry.scale_x, geometry.scale_y], np.float32)
    limit = np.array([geometry.image_w, geometry.image_h], np.float32)
    out = np.subtract(xy, offset, out=out, dtype=np.float32)
    np.multiply(out, scale, out=out)
    return np.clip(out, np.float32(0), limit, out=out)


def boxes_to_image(
    geometry: Geometry, xyxy: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Map boxes from tensor pixels to image pixels, clipped to the image.

    Args:
        geometry: of the image the tensor was made from.
        xyxy: float32 of shape (..., 4), corners in tensor pixels.
        out: where to write, of the same shape; ``xyxy`` itself is allowed. Allocated when None.

    Returns:
        ``out``: float32 of the same shape, each corner inside the image. NaN stays NaN.
    """
    if out is None:
        out = np.empty(xyxy.shape, np.float32)
    for corner in (slice(0, 2), slice(2, 4)):
        points_to_image(geometry, xyxy[..., corner], out=out[..., corner])
    return out


def _placement(geometry: Geometry) -> tuple[int, int, int, int]:
    return geometry.resized_h, geometry.resized_w, geometry.offset_y, geometry.offset_x


def _with_contiguous_pixels(image: object, index: int) -> NDArray[np.uint8]:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        raise InputDataError(
            f"image {index} to be a uint8 array of shape (height, width, 3)",
            got=_described(image),
            fix="Convert the image to three channels, in height-width-channel order.",
        )
    if image.dtype != np.uint8:
        raise InputDataError(
            f"image {index} to hold uint8 pixels, 0…255",
            got=_described(image),
            fix="Scale to 0…255 and convert with .astype(np.uint8).",
        )
    pixels_contiguous = image.strides[2] == 1 and (image.strides[1] == 3 or image.shape[1] == 1)
    return image if pixels_contiguous else np.ascontiguousarray(image)


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return f"a {type(value).__name__}"


def _check_cpu_level() -> None:
    try:
        _core.cpu_level()
    except ValueError as error:
        raise UsageError(
            "a level of CPU instructions in VISIONRT_CPU_LEVEL",
            got=str(error).partition(", got ")[2],
            fix=f"Use one of {', '.join(_core.cpu_levels())}, or unset it.",
        ) from error


def _translated(error: ValueError, fix: str) -> InputDataError:
    """The native layer says "expected X, got Y"; add what to do about it."""
    expected, _, got = str(error).removeprefix("expected ").partition(", got ")
    return InputDataError(expected, got=got or "something else", fix=fix)
