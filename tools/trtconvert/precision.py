"""Makes the typed graph of a precision."""

from __future__ import annotations

from onnx import ModelProto

from trtconvert.calibration.options import CalibrationOptions
from trtconvert.passes.half_types import BF16, FP16
from trtconvert.progress import Progress, silent
from trtconvert.typed import TypedGraph
from trtconvert.typers import Fp32Typer, HalfTyper, Int8Typer, Typer
from trtconvert.weights import WeightFile
from visionrt.errors import UsageError
from visionrt.recipe import Recipe

__all__ = ["PRECISIONS", "TypedGraph", "typed_graph", "typer_for"]
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_HALF_TYPES = {half.name: half for half in (FP16, BF16)}


def typed_graph(
    clean: ModelProto,
    recipe: Recipe,
    precision: str,
    calibration: CalibrationOptions | None = None,
    progress: Progress | None = None,
    weight_file: WeightFile | None = None,
) -> TypedGraph:
    """The typed graph of a clean float32 graph; blocks while it calibrates.

    The arguments and errors are those of :func:`typer_for`.
    """
    return typer_for(clean, recipe, precision, calibration, progress, weight_file).typed()


def typer_for(
    clean: ModelProto,
    recipe: Recipe,
    precision: str,
    calibration: CalibrationOptions | None = None,
    progress: Progress | None = None,
    weight_file: WeightFile | None = None,
) -> Typer:
    """What makes the typed graphs of a clean float32 graph; blocks while it calibrates.

    Args:
        clean: a flat, folded graph with named nodes; not changed.
        recipe: its preprocess spec reads the calibration images.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        calibration: needed for ``int8``; with images, ``fp16`` keeps tensors that come near its
            largest number in float32.
        progress: called after each calibration image.
        weight_file: where ``clean`` keeps its large constants; for ``int8`` alone.

    Raises:
        UsageError: an unknown precision, ``int8`` without calibration, or a table of ranges that
            does not fit.
        ModelError: control flow, a graph that cannot be converted, or nothing to quantize.
        InputDataError: calibration images are missing or unreadable.
    """
    if precision == "int8":
        return Int8Typer(clean, recipe, calibration, progress or silent, weight_file)
    if precision in _HALF_TYPES:
        half = _HALF_TYPES[precision]
        return HalfTyper(clean, recipe, calibration, progress or silent, half)
    if precision == "fp32":
        return Fp32Typer(clean)
    raise UsageError(
        f"a precision: {' | '.join(PRECISIONS)}", got=precision, fix="Name one of them."
    )
