"""A picture to draw on: sizes that follow the image, colours by class, labels kept inside."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color: TypeAlias = tuple[int, int, int]
Rect: TypeAlias = tuple[float, float, float, float]  # x0, y0, x1, y1

_WHITE, _BLACK = (255, 255, 255), (20, 20, 20)
_PANEL = (18, 20, 26, 190)
_TRACK = (255, 255, 255, 46)
_GOLDEN_RATIO = 0.618034


def class_color(class_id: int) -> Color:
    """A bright colour, RGB; neighbouring ids get distant hues."""
    hue = (0.93 + class_id * _GOLDEN_RATIO) % 1.0
    saturation, value = ((0.8, 1.0), (0.75, 0.95), (0.9, 0.85))[class_id % 3]
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return (round(r * 255), round(g * 255), round(b * 255))


def text_color(background: Color) -> Color:
    """Black or white, whichever reads better; BT.601 luma decides."""
    r, g, b = background
    return _BLACK if 0.299 * r + 0.587 * g + 0.114 * b > 140 else _WHITE


class Canvas:
    """An RGB picture and a pen whose sizes suit it.

    Args:
        bgr: (height, width, 3) uint8 BGR; copied.
    """

    def __init__(self, bgr: NDArray[np.uint8]) -> None:
        self.image = Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
        self.width, self.height = self.image.size
        # The mean side, held back for panoramas by the shorter one.
        side = min((self.width + self.height) / 2, 3 * min(self.width, self.height))
        self.line = max(2, round(side / 220))
        self.font_size = min(max(11, round(side / 34)), 96)
        self.pad = max(2, round(self.font_size * 0.3))
        self._font = ImageFont.load_default(size=self.font_size)
        ascent, descent = (
            self._font.getmetrics() if isinstance(self._font, ImageFont.FreeTypeFont) else (10, 2)
        )
        self.text_height = ascent + descent
        self._draw = ImageDraw.Draw(self.image, "RGBA")
        self._labels: list[Rect] = []

    def to_array(self) -> NDArray[np.uint8]:
        """The picture, (height, width, 3) uint8 BGR."""
        return np.ascontiguousarray(np.asarray(self.image)[..., ::-1])

    def text_width(self, text: str) -> int:
        """Pixels that a line of text takes."""
        return round(self._font.getlength(text))

    def box(self, rect: Rect, color: Color) -> None:
        """A rectangle's outline, drawn inwards, and a thin dark line to part it from the image."""
        x0, y0, x1, y1 = self._inside(rect)
        self._draw.rectangle((x0, y0, x1, y1), outline=(*_BLACK, 110), width=self.line + 1)
        self._draw.rectangle((x0, y0, x1, y1), outline=color, width=self.line)

    def label(self, rect: Rect, text: str, color: Color) -> None:
        """A tag at a box: above it, or where there is room, inside the image, off other tags."""
        text = self.fitted(text, self.width - 2 * self.pad)
        width, height = self.text_width(text) + 2 * self.pad, self.text_height + self.pad
        x0, y0, _, y1 = self._inside(rect)
        tops = (y0 - height, y0, y1, y1 - height, y0 + height, y1 - 2 * height)
        places = [self._shifted(x0, top, width, height) for top in tops]
        free = [p for p in places if not any(_overlap(p, other) for other in self._labels)]
        place = (free or places)[0]
        self._labels.append(place)
        radius = max(1, self.pad // 2)
        self._draw.rounded_rectangle(place, radius, fill=(*color, 235))
        self.text(place[0] + self.pad, place[1] + self.pad / 2, text, text_color(color))

    def text(self, x: float, y: float, text: str, color: Color) -> None:
        """A line of text; x, y is its top left corner."""
        self._draw.text((x, y), text, fill=color, font=self._font)

    def panel(self, rows: Sequence[tuple[str, float, Color]]) -> None:
        """A table in the top left corner: colour, name, and a share 0…1 as number and bar."""
        if not rows:
            return
        row_height = round(self.text_height * 1.25)
        number = self.text_width("100.0%")
        margin = 2 * self.pad
        swatch = round(self.font_size * 0.55)
        wanted = max(self.text_width(name) for name, _, _ in rows)
        spare = self.width - 2 * self.pad - 2 * margin - swatch - number - 2 * self.pad
        name_width = min(wanted, max(spare, self.font_size))
        shown = min(len(rows), max(1, (self.height - 2 * self.pad - margin) // row_height))
        x0 = y0 = float(self.pad)
        inner = swatch + self.pad + name_width + self.pad + number
        x1, y1 = x0 + inner + 2 * margin, y0 + shown * row_height + margin
        self._draw.rounded_rectangle((x0, y0, x1, y1), self.pad, fill=_PANEL)
        for i, (name, share, color) in enumerate(rows[:shown]):
            x, y = x0 + margin, y0 + margin / 2 + i * row_height
            middle = y + self.text_height / 2
            box = (x, middle - swatch / 2, x + swatch, middle + swatch / 2)
            self._draw.rounded_rectangle(box, max(1, swatch // 5), fill=color)
            self.text(x + swatch + self.pad, y, self.fitted(name, name_width), _WHITE)
            value = f"{share:.1%}"
            self.text(x + inner - self.text_width(value), y, value, _WHITE)
            bar = (x, y + self.text_height + 1, x + inner, y + row_height - 2)
            if bar[3] > bar[1]:
                self._draw.rectangle(bar, fill=_TRACK)
                self._draw.rectangle((*bar[:2], x + inner * min(max(share, 0), 1), bar[3]), color)

    def fitted(self, text: str, width: float) -> str:
        """The text, cut with an ellipsis where it is wider than ``width`` pixels."""
        if self.text_width(text) <= width:
            return text
        while text and self.text_width(text + "…") > width:
            text = text[:-1]
        return text + "…"

    def paste(self, overlay: Image.Image) -> None:
        """Lay an RGBA picture of the same size over this one."""
        self.image.paste(overlay, (0, 0), overlay)

    def _inside(self, rect: Rect) -> Rect:
        x0, y0, x1, y1 = (round(v) for v in rect)
        right, low = self.width - 1, self.height - 1
        x0, y0 = min(max(x0, 0), right), min(max(y0, 0), low)
        return (x0, y0, min(max(x1 - 1, x0), right), min(max(y1 - 1, y0), low))

    def _shifted(self, x: float, y: float, width: float, height: float) -> Rect:
        x = max(0, min(x, self.width - 1 - width))
        y = max(0, min(y, self.height - 1 - height))
        return (x, y, x + width, y + height)


def _overlap(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
