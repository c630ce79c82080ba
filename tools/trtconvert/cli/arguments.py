"""Flags that several commands share, and how their texts become values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from trtconvert.calibration.options import METHODS, CalibrationOptions
from trtconvert.edits import NMS_CHOICES, GraphEdits
from trtconvert.recipe_flags import RecipeFlags, flags_with_recipe
from trtconvert.shapes import ShapeFlags, parse_shapes
from visionrt.errors import UsageError
from visionrt.labels import LABEL_SETS
from visionrt.recipe import HEADS, TASKS

Function = TypeVar("Function", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
SHARE = click.FloatRange(0, 1)

_EDIT_FLAGS = (
    click.option(
        "--nms",
        type=click.Choice(NMS_CHOICES),
        default="inside",
        help="Keep an NMS in the graph, or cut it off: ours then runs outside the engine.",
    ),
    click.option("--outputs", metavar="NAME,…", help="Cut the graph: it ends at these tensors."),
    click.option(
        "--input-size", metavar="HxW", help="Size of the image input, where the graph allows it."
    ),
)
_RECIPE_FLAGS = (
    click.option("--task", type=click.Choice(TASKS), help="What the model does."),
    click.option("--head", type=click.Choice(HEADS), help="Layout of its raw outputs."),
    click.option("--labels", metavar="NAME|FILE", help=f"{', '.join(LABEL_SETS)}, or a file."),
    click.option(
        "--preprocess",
        metavar="NAME|JSON",
        help="How images become tensors: a preset, a preset with changes "
        "(imagenet,size=288x288), or JSON.",
    ),
    click.option("--recipe", "recipe_file", type=PATH, metavar="FILE", help="What guess -o wrote."),
    click.option("--head-options", metavar="JSON", help="What the head needs, as an object."),
    *_EDIT_FLAGS,
    click.option("--confidence", type=SHARE, metavar="P", help="Default score threshold."),
    click.option("--iou", type=SHARE, metavar="P", help="Default NMS threshold."),
    click.option(
        "--max-det", type=click.IntRange(1), metavar="N", help="Most detections per image."
    ),
)
_SHAPE_FLAGS = (
    click.option(
        "--batch", type=click.IntRange(1), metavar="N", help="Largest batch of the plans."
    ),
    click.option("--shapes", metavar="NAME:1x3x640x640", help="One fixed shape."),
    click.option("--minShapes", "min_shapes", metavar="SHAPES", help="Smallest shapes."),
    click.option("--optShapes", "opt_shapes", metavar="SHAPES", help="Most common shapes."),
    click.option("--maxShapes", "max_shapes", metavar="SHAPES", help="Largest shapes."),
)
_CALIBRATION_FLAGS = (
    click.option("--calib", type=PATH, metavar="DIR", help="Images to calibrate int8 on."),
    click.option("--calib-images", type=click.IntRange(1), metavar="N", help="How many of them."),
    click.option("--calib-method", type=click.Choice(METHODS), default="mse", show_default=True),
    click.option("--ranges", type=PATH, metavar="FILE", help="Ranges of an earlier calibration."),
)

json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
quiet_flag = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
verbose_flag = click.option("-v", "--verbose", is_flag=True, help="Say why, too.")


def recipe_flags(function: Function) -> Function:
    """Add the flags that describe the model."""
    for option in reversed(_RECIPE_FLAGS):
        function = option(function)
    return function


def edit_flags(function: Function) -> Function:
    """Add the flags that cut a graph, for commands that need no recipe."""
    for option in reversed(_EDIT_FLAGS):
        function = option(function)
    return function


def shape_flags(function: Function) -> Function:
    """Add the flags that give input shapes."""
    for option in reversed(_SHAPE_FLAGS):
        function = option(function)
    return function


def calibration_flags(function: Function) -> Function:
    """Add the flags that say where activation ranges come from."""
    for option in reversed(_CALIBRATION_FLAGS):
        function = option(function)
    return function


def take_recipe_flags(flags: dict[str, Any]) -> RecipeFlags:
    """Move the recipe flags out of a command's keyword arguments.

    Raises:
        UsageError: ``--head-options`` is not a JSON object, or ``--recipe`` no recipe.
    """
    recipe_file: Path | None = flags.pop("recipe_file")
    options = _json_object(flags.pop("head_options"))
    edits = take_edits(flags)
    names = ("task", "head", "labels", "preprocess", "confidence", "iou", "max_det")
    given = RecipeFlags(
        head_options=options, edits=edits, **{name: flags.pop(name) for name in names}
    )
    return given if recipe_file is None else flags_with_recipe(given, recipe_file)


def take_edits(flags: dict[str, Any]) -> GraphEdits:
    """Move the flags that change a graph out of a command's keyword arguments.

    Raises:
        UsageError: flags that exclude each other, or an ill-formed size.
    """
    outputs = flags.pop("outputs") or ""
    names = tuple(name for part in outputs.split(",") if (name := part.strip()))
    size, batch = _size(flags.pop("input_size")), flags.get("batch") or 1
    return GraphEdits(names, flags.pop("nms"), size, free_batch=batch > 1)


def take_shape_flags(flags: dict[str, Any]) -> ShapeFlags:
    """Move the shape flags out of a command's keyword arguments.

    Raises:
        UsageError: ill-formed shapes, or flags that exclude each other.
    """
    batch, fixed = flags.pop("batch"), flags.pop("shapes")
    low, middle, high = (flags.pop(f"{name}_shapes") for name in ("min", "opt", "max"))
    if sum(bool(given) for given in (batch, fixed, low or middle or high)) > 1:
        raise UsageError(
            "one of --batch, --shapes, and --minShapes/--optShapes/--maxShapes",
            got="several",
            fix="Keep one: the others are implied.",
        )
    if fixed:
        low = middle = high = fixed
    low, middle, high = (parse_shapes(text or "") for text in (low, middle, high))
    return ShapeFlags(min=low, opt=middle, max=high, batch=batch)


def take_calibration_flags(flags: dict[str, Any]) -> CalibrationOptions | None:
    """Move the calibration flags out of a command's keyword arguments; None without images.

    Raises:
        UsageError: a number of images, but no folder.
    """
    folder, ranges, count, method = (
        flags.pop(name) for name in ("calib", "ranges", "calib_images", "calib_method")
    )
    # Not every command can choose a subset.
    subset = flags.pop("calib_subset", None)
    if folder is None and ranges is None:
        for flag, value in (("--calib-images", count), ("--calib-subset", subset)):
            if value is not None:
                raise UsageError(f"--calib FOLDER with {flag}", got="none", fix="Name the folder.")
        return None
    return CalibrationOptions(
        images=folder if folder is not None else (),
        method=method,
        count=count,
        subset=subset,
        ranges=ranges,
    )


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    parts = parts * 2 if len(parts) == 1 else parts
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(
            "--input-size HEIGHTxWIDTH", got=repr(text), fix="Write it as in 320x320, or 320."
        )
    return int(parts[0]), int(parts[1])


def _json_object(text: str | None) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            "--head-options as a JSON object", got=f"{text!r} ({error})", fix="Mend the JSON."
        ) from error
    if not isinstance(value, dict):
        raise UsageError(
            "--head-options as a JSON object", got=repr(text), fix='Write {"key": value}.'
        )
    return value
