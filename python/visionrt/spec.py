"""The preprocess spec: one immutable value that says how an image becomes a tensor.

The same value drives the CUDA kernel, the CPU back end, the calibration reader and the
evaluator. Its hash is stored in the engine file; see :attr:`PreprocessSpec.digest`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visionrt.errors import UsageError

RESIZES = ("letterbox", "stretch", "crop")
INTERPOLATIONS = ("cv2", "pil")
COLORS = ("rgb", "bgr", "gray")
LAYOUTS = ("nchw", "nhwc")
DTYPES = ("float32", "float16", "uint8")
ALIGNMENTS = ("center", "top_left")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PreprocessSpec:
    """How an 8-bit image becomes the model's input tensor.

    Pixels are in 0…255 and the result is ``(pixel - mean) / std`` per channel.

    Attributes:
        resize: ``letterbox`` (keep the aspect ratio, pad), ``stretch``, or ``crop`` (resize the
            shorter side to ``size / crop_ratio``, then cut the centre).
        size: height and width of the tensor, pixels.
        crop_ratio: share of the resized shorter side that ``crop`` keeps.
        interpolation: ``cv2`` equals ``cv2.resize(INTER_LINEAR)`` on 8-bit images; ``pil`` is
            Pillow's antialiased ``BILINEAR``.
        color: channel order of the tensor; ``gray`` has one channel (BT.601 luma).
        mean, std: per channel, in the order of ``color``; pixel units.
        pad_value: the letterbox border, pixel units, before normalisation.
        letterbox_align: where the image sits inside the border.
        layout: ``nchw`` or ``nhwc``.
        dtype: element type of the tensor; ``uint8`` needs ``mean`` 0 and ``std`` 1.
    """

    resize: str = "letterbox"
    size: tuple[int, int] = (640, 640)
    crop_ratio: float = 0.875
    interpolation: str = "cv2"
    color: str = "rgb"
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (255.0, 255.0, 255.0)
    pad_value: int = 114
    letterbox_align: str = "center"
    layout: str = "nchw"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for key, allowed in _CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                raise _bad(key, " | ".join(allowed), value)
        object.__setattr__(self, "size", _size(self.size))
        for key in ("mean", "std"):
            object.__setattr__(self, key, _triple(key, getattr(self, key)))
        if not all(s > 0 for s in self.std):
            raise _bad("std", "numbers above 0", self.std)
        if not (_is_number(self.crop_ratio) and 0 < self.crop_ratio <= 1):
            raise _bad("crop_ratio", "a number in (0, 1]", self.crop_ratio)
        if not (_is_integer(self.pad_value) and 0 <= self.pad_value <= 255):
            raise _bad("pad_value", "an integer in 0…255", self.pad_value)
        if self.dtype == "uint8" and (any(self.mean) or any(s != 1 for s in self.std)):
            raise _bad("dtype", "mean 0 and std 1 with uint8", f"{self.mean}, {self.std}")

    @property
    def channels(self) -> int:
        """Channels of the tensor: 3, or 1 for ``gray``."""
        return 1 if self.color == "gray" else 3

    def tensor_shape(self, batch: int = 1) -> tuple[int, int, int, int]:
        """Shape of the tensor for ``batch`` images, in ``layout`` order."""
        h, w = self.size
        if self.layout == "nchw":
            return (batch, self.channels, h, w)
        return (batch, h, w, self.channels)

    def replace(self, **changes: Any) -> PreprocessSpec:
        """A copy with some fields changed. Raises UsageError on an unknown field."""
        return PreprocessSpec.from_json({**self.to_json(), **changes})

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON types, in a fixed order."""
        out = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form, as hex. Stored in the engine file."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PreprocessSpec:
        """Build from a mapping; missing keys take their defaults.

        Raises:
            UsageError: unknown key, wrong type or value out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(value) - known)
        if unknown:
            raise _bad("key", ", ".join(sorted(known)), ", ".join(map(repr, unknown)))
        return cls(**dict(value))

    @classmethod
    def parse(cls, text: str) -> PreprocessSpec:
        """Read what ``--preprocess`` takes: JSON, a preset, or a preset with changes.

        Examples: ``imagenet``, ``imagenet,size=288x288``, ``{"resize": "stretch"}``.

        Raises:
            UsageError: not a preset, not valid JSON, or a bad field.
        """
        text = text.strip()
        if text.startswith("{"):
            try:
                value = json.loads(text)
            except json.JSONDecodeError as error:
                raise UsageError(
                    "a preprocess spec in JSON", got=f"{text!r} ({error})", fix="Mend the JSON."
                ) from error
            return cls.from_json(value)
        name, *changes = text.split(",")
        if name not in PRESETS:
            raise UsageError(
                f"a preprocess preset ({', '.join(PRESETS)}) or a JSON object",
                got=repr(name),
                fix='Name a preset, add changes as in "imagenet,size=288x288", or give JSON.',
            )
        spec: dict[str, Any] = PRESETS[name].to_json()
        key = ""
        for part in changes:
            head, equals, tail = part.partition("=")
            if equals:
                key = head.strip()
                spec[key] = _field_from_text(key, tail.strip())
            elif key in ("mean", "std"):
                # "mean=1,2,3" was cut at its commas: the rest belongs to the same field.
                spec[key] = [*_as_list(spec[key]), _number(key, part)]
            else:
                raise _bad("change", "key=value", part)
        return cls.from_json(spec)


_CHOICES = {
    "resize": RESIZES,
    "interpolation": INTERPOLATIONS,
    "color": COLORS,
    "layout": LAYOUTS,
    "dtype": DTYPES,
    "letterbox_align": ALIGNMENTS,
}


def _bad(key: str, expected: str, got: object) -> UsageError:
    return UsageError(
        f"preprocess {key}: {expected}", got=str(got), fix="Correct the preprocess spec."
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)  # type: ignore[arg-type]


def _size(value: object) -> tuple[int, int]:
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_integer, value)):
        h, w = value
        if 1 <= h <= 16384 and 1 <= w <= 16384:
            return (h, w)
    raise _bad("size", "[height, width], each 1…16384", value)


def _triple(key: str, value: object) -> Triple:
    if _is_number(value):
        value = [value] * 3
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = [*value] * 3
    if isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_number, value)):
        a, b, c = map(float, value)
        return (a, b, c)
    raise _bad(key, "1 or 3 finite numbers", value)


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else [value]


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise _bad(key, "a number", repr(text)) from error


def _field_from_text(key: str, text: str) -> object:
    if key == "size":
        parts = text.lower().split("x")
        if len(parts) == 1:
            parts *= 2
        if len(parts) == 2 and all(p.isdecimal() for p in parts):
            return [int(p) for p in parts]
        raise _bad("size", "HEIGHTxWIDTH", repr(text))
    if key in ("mean", "std", "crop_ratio"):
        return _number(key, text)
    if key == "pad_value":
        return int(text) if text.isdecimal() else text
    return text


PRESETS: dict[str, PreprocessSpec] = {
    # torchvision's reference evaluation transform.
    "imagenet": PreprocessSpec(
        resize="crop",
        size=(224, 224),
        interpolation="pil",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
    "yolo": PreprocessSpec(),
    "yolox": PreprocessSpec(color="bgr", std=(1.0, 1.0, 1.0), letterbox_align="top_left"),
    "tf": PreprocessSpec(
        resize="stretch",
        size=(224, 224),
        mean=(127.5, 127.5, 127.5),
        std=(127.5, 127.5, 127.5),
    ),
    "caffe": PreprocessSpec(
        resize="crop",
        size=(224, 224),
        color="bgr",
        mean=(103.939, 116.779, 123.68),
        std=(1.0, 1.0, 1.0),
    ),
    "none": PreprocessSpec(resize="stretch", size=(224, 224), std=(1.0, 1.0, 1.0)),
}
