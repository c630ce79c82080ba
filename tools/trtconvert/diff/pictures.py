"""Pictures of the images that differ the most: the two answers beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from visionrt import image_io
from visionrt.plot_canvas import Canvas
from visionrt.results import Result

Picture = NDArray[np.uint8]

MOST_SIDE = 1024
_GAP = 8
_PAPER = 250
_INK = (20, 20, 20)


def save_side_by_side(
    path: Path, image: Path, results: Sequence[Result], titles: Sequence[str]
) -> None:
    """Draw each result on the image, left to right under its title, and write the picture.

    Args:
        path: to write; the format follows the ending.
        image: file that the results are of.
        results: of one image.
        titles: one per result.

    Raises:
        InputDataError: the image cannot be read any more, or the picture not be written.
    """
    halves = [_fitted(result.plot(image)) for result in results]
    canvases = [Canvas(half) for half in halves]
    strip = canvases[0].text_height + 2 * canvases[0].pad
    parts: list[Picture] = []
    for half, canvas, title in zip(halves, canvases, titles, strict=True):
        height, width = half.shape[:2]
        sheet = np.full((height + strip, width, 3), _PAPER, np.uint8)
        sheet[strip:] = half
        pen = Canvas(sheet)
        text = pen.fitted(title, width - 2 * canvas.pad)
        pen.text(canvas.pad, canvas.pad, text, _INK)
        parts += [pen.to_array(), np.full((height + strip, _GAP, 3), _PAPER, np.uint8)]
    image_io.write(path, np.concatenate(parts[:-1], axis=1))


def _fitted(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    scale = MOST_SIDE / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
