"""The preprocess spec of a model: from flags, with size, layout and type from the graph's input."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from onnx import ModelProto

from trtconvert.graph import dtype_of, image_inputs
from trtconvert.shapes import ShapeFlags, image_input_of
from visionrt.errors import ModelError, UsageError
from visionrt.spec import DTYPES, PRESETS, PreprocessSpec


class Geometry(NamedTuple):
    """What a graph's image input says about its tensor; ``size`` is None where it is dynamic."""

    layout: str
    size: tuple[int, int] | None
    channels: int
    dtype: str


def geometry_of(model: ModelProto, flags: ShapeFlags, layout: str | None = None) -> Geometry:
    """Read layout, size, channels and element type off the image input.

    Args:
        model: with one image input.
        flags: shapes from the command line stand in for symbolic sizes.
        layout: where it is known already.

    Raises:
        ModelError: the input is not an image of 1 or 3 channels, or of another element type.
    """
    name, graph_shape = image_input_of(model)
    flagged = flags.of(name)
    shape = list(graph_shape)
    if flagged and len(flagged) == 4:
        shape = [b if isinstance(a, str) else a for a, b in zip(shape, flagged, strict=True)]
    if layout is None:
        # Channels last only when nothing speaks for channels first.
        first, last = shape[1], shape[3]
        layout = "nhwc" if last in (1, 3) and first not in (1, 3) else "nchw"
    channels = shape[1 if layout == "nchw" else 3]
    height, width = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    dtype = dtype_of(image_inputs(model.graph)[0])
    if dtype not in DTYPES or (isinstance(channels, int) and channels not in (1, 3)):
        raise ModelError(
            f"an image input of 1 or 3 channels and type {' | '.join(DTYPES)}",
            got=f"{name!r} {dtype}{list(graph_shape)}",
            fix="Export the model with an image as its input.",
        )
    known = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    return Geometry(layout, known, channels if isinstance(channels, int) else 3, dtype)


def spec_from_text(
    text: str, model: ModelProto, flags: ShapeFlags
) -> tuple[PreprocessSpec, dict[str, str]]:
    """Complete what ``--preprocess`` says with what the graph's input says.

    Returns:
        The spec, and a reason for each of ``size``, ``layout`` and ``dtype``.

    Raises:
        UsageError: a bad spec, one that contradicts the graph, or no size anywhere.
        ModelError: see :func:`geometry_of`.
    """
    spec, given = _parse(text)
    geometry = geometry_of(model, flags, spec.layout if "layout" in given else None)
    changes: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    if geometry.size is None and "size" not in given:
        name = _preset_name(text) or "yolo"
        raise UsageError(
            "an input size, which the graph leaves open",
            got="none",
            fix=f"Add it to --preprocess, as in {name},size=640x640, or give --shapes.",
        )
    for key in ("size", "layout", "dtype"):
        from_graph = getattr(geometry, key)
        if key not in given and from_graph is not None:
            changes[key] = from_graph
            reasons[key] = "the graph's input"
        elif from_graph is not None and getattr(spec, key) != from_graph:
            raise UsageError(
                f"preprocess {key} {_text(from_graph)}, as the graph's input has it",
                got=_text(getattr(spec, key)),
                fix=f"Leave {key} out of --preprocess.",
            )
        else:
            reasons[key] = "--preprocess"
    if geometry.dtype == "uint8" and not given & {"mean", "std"}:
        if _preset_name(text) not in (None, "none", "yolo", "yolox"):
            raise UsageError(
                "no normalisation, since the graph takes uint8 pixels",
                got=f"the preset {_preset_name(text)!r}",
                fix="Use none with changes, as in none,resize=letterbox.",
            )
        changes |= {"mean": [0, 0, 0], "std": [1, 1, 1]}
    if geometry.channels == 1 and "color" not in given:
        changes["color"] = "gray"
        reasons["color"] = "the graph's input has one channel"
    spec = PreprocessSpec.from_json({**spec.to_json(), **changes})
    if spec.channels != geometry.channels:
        raise UsageError(
            f"a color with {geometry.channels} channel(s), as the graph's input has",
            got=spec.color,
            fix="Leave color out of --preprocess, or write color=rgb, bgr or gray.",
        )
    return spec, reasons


def _parse(text: str) -> tuple[PreprocessSpec, set[str]]:
    """The spec as written, and the keys that were written."""
    spec = PreprocessSpec.parse(text)
    if text.strip().startswith("{"):
        return spec, set(json.loads(text))
    return spec, {part.partition("=")[0].strip() for part in text.split(",")[1:] if "=" in part}


def _preset_name(text: str) -> str | None:
    name = text.strip().split(",")[0]
    return name if name in PRESETS else None


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
