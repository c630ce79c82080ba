"""EXIF orientation of a JPEG: found without a decoder, and applied to an array."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SOS, _APP1 = 0xDA, 0xE1
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD9)))
_ORIENTATION_TAG, _SHORT = 0x0112, 3


def jpeg_orientation(data: bytes) -> int:
    """Orientation 1…8 of an encoded JPEG; 1 when it has none or the tag cannot be read.

    Source: JPEG (ITU-T T.81) B.1.1 for the segments, EXIF 2.32 4.6.2 for the tag.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == _SOS:
            break
        size = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + size]
        if marker == _APP1 and body[:6] == b"Exif\0\0":
            return _tiff_orientation(body[6:])
        position += 2 + size
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    for i in range(entries):
        at = start + 2 + 12 * i
        if at + 12 > len(tiff):
            break
        tag, kind = struct.unpack_from(order + "HH", tiff, at)
        if tag == _ORIENTATION_TAG and kind == _SHORT:
            (value,) = struct.unpack_from(order + "H", tiff, at + 8)
            return int(value) if 1 <= value <= 8 else 1
    return 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A (height, width, …) array turned so that it is seen as the photographer saw it.

    The result is a view where it can be; 5…8 swap height and width.
    """
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    # After the swap, 5…8 mirror as 1…4 do (EXIF 2.32, 4.6.5: row 0 and column 0 of the scene).
    mirror_x = orientation in (2, 3, 6, 7)
    mirror_y = orientation in (3, 4, 7, 8)
    return pixels[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
