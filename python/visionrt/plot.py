"""Annotated pictures of results. Every function takes and returns (h, w, 3) uint8 BGR."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from visionrt.plot_canvas import Canvas, class_color
from visionrt.results import Detections, Keypoints, RotatedDetections, Segmentation

Picture = NDArray[np.uint8]

_MASK_OPACITY = 0.45
_SMOOTHING = 2  # lines and discs are drawn this much larger, then scaled down
_BACKGROUNDS = ("background", "_background_", "unlabeled", "unlabelled", "void", "none", "")
_LEFT, _RIGHT, _MIDDLE = (255, 140, 40), (60, 170, 255), (90, 230, 120)


def draw_classes(canvas: Picture, rows: Sequence[tuple[str, float]]) -> Picture:
    """Classes, best first, as a table with bars."""
    out = Canvas(canvas)
    out.panel([(short_name(name), p, class_color(i)) for i, (name, p) in enumerate(rows)])
    return out.to_array()


def draw_boxes(canvas: Picture, found: Detections) -> Picture:
    """Boxes (and masks, if any) with name and confidence; the surest on top."""
    if found.mask is not None:
        canvas = canvas.copy()
        for mask, class_id in zip(found.mask, found.class_id.tolist(), strict=True):
            _tint(canvas, mask, class_id)
    out = Canvas(canvas)
    rows = list(found)
    for row in reversed(rows):
        out.box(_rect(row.xyxy), class_color(row.class_id))
    for row in rows:
        text = f"{short_name(row.name)} {row.confidence:.2f}"
        out.label(_rect(row.xyxy), text, class_color(row.class_id))
    return out.to_array()


def draw_rotated(canvas: Picture, found: RotatedDetections) -> Picture:
    """Outlines of rotated boxes with name and confidence; the surest on top."""
    out = Canvas(canvas)
    overlay = Image.new("RGBA", (out.width * _SMOOTHING, out.height * _SMOOTHING))
    pen = ImageDraw.Draw(overlay)
    rows = list(zip(found, found.xyxyxyxy.tolist(), strict=True))
    for row, corners in reversed(rows):
        ring = [(x * _SMOOTHING, y * _SMOOTHING) for x, y in (*corners, *corners[:2])]
        color = class_color(row.class_id)
        for width, fill in ((2, (20, 20, 20, 110)), (1, (*color, 255))):
            pen.line(ring, fill=fill, width=(out.line + width - 1) * _SMOOTHING, joint="curve")
    out.paste(overlay.resize((out.width, out.height), Image.Resampling.BOX))
    for row, _ in rows:
        text = f"{short_name(row.name)} {row.confidence:.2f}"
        out.label(_rect(row.xyxy), text, class_color(row.class_id))
    return out.to_array()


def draw_segments(canvas: Picture, found: Segmentation) -> Picture:
    """A translucent colour and an outline per class, and a legend with shares.

    Class 0 stays uncoloured when its name says that it is the background, or is not known.
    """
    canvas = canvas.copy()
    shares = found.shares()
    has_background = not found.names or found.names[0].lower() in _BACKGROUNDS
    for class_id in shares:
        if class_id or not has_background:
            _tint(canvas, found.mask == class_id, class_id)
    out = Canvas(canvas)
    legend = [c for c in shares if c or not has_background]
    out.panel([(short_name(found.label(c)), shares[c], class_color(c)) for c in legend])
    return out.to_array()


def draw_poses(canvas: Picture, found: Keypoints) -> Picture:
    """Keypoints at or above ``found.threshold`` and the lines between them, by side of the body.

    Objects' boxes too, where the model gives them.
    """
    out = Canvas(canvas)
    if found.xyxy is not None and found.class_id is not None:
        for box, class_id in zip(found.xyxy, found.class_id.tolist(), strict=True):
            out.box(_rect(box), class_color(class_id))
    overlay = Image.new("RGBA", (out.width * _SMOOTHING, out.height * _SMOOTHING))
    pen = ImageDraw.Draw(overlay)
    line = out.line * _SMOOTHING
    for pose in found.keypoints:
        points = [(x * _SMOOTHING, y * _SMOOTHING) for x, y in pose[:, :2].tolist()]
        seen = pose[:, 2] >= found.threshold
        for a, b in found.skeleton:
            if seen[a] and seen[b]:
                color = _side_color(found, a, b)
                pen.line((points[a], points[b]), fill=(20, 20, 20, 150), width=round(line * 2.2))
                pen.line((points[a], points[b]), fill=(*color, 255), width=round(line * 1.4))
        for k, (x, y) in enumerate(points):
            if seen[k]:
                rim, disc = (20, 20, 20, 200), (255, 255, 255, 255)
                discs = ((2.2, rim), (1.8, disc), (1.3, (*_side_color(found, k, k), 255)))
                for radius, fill in discs:
                    r = radius * line
                    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    out.paste(overlay.resize((out.width, out.height), Image.Resampling.BOX))
    return out.to_array()


def short_name(name: str) -> str:
    """The first of several synonyms, as ImageNet's names list them."""
    return name.partition(",")[0]


def _side_color(found: Keypoints, a: int, b: int) -> tuple[int, int, int]:
    names = found.label(a), found.label(b)
    if all(name.startswith("left") for name in names):
        return _LEFT
    if all(name.startswith("right") for name in names):
        return _RIGHT
    return _MIDDLE


def _rect(xyxy: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = xyxy.tolist()
    return (x0, y0, x1, y1)


def _tint(canvas: Picture, mask: NDArray[np.bool_], class_id: int) -> None:
    bgr = np.array(class_color(class_id)[::-1], np.float32)
    blend = canvas[mask] * (1 - _MASK_OPACITY) + bgr * _MASK_OPACITY
    canvas[mask] = blend.round().astype(np.uint8)
    canvas[_outline(mask, max(1, min(mask.shape) // 300))] = bgr.astype(np.uint8)


def _outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of the mask that are within ``width`` of its edge; the image's is no edge."""
    inner = mask.copy()
    for _ in range(width):
        padded = np.pad(inner, 1, mode="edge")
        inner = (
            padded[1:-1, 1:-1]
            & padded[:-2, 1:-1]
            & padded[2:, 1:-1]
            & padded[1:-1, :-2]
            & padded[1:-1, 2:]
        )
    return mask & ~inner
