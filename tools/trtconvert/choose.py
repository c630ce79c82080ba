"""Chooses the precision: types the graph, verifies it, and takes the fastest that holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from onnx import ModelProto

from trtconvert.evidence import Evidence
from trtconvert.options import BuildOptions
from trtconvert.precision import TypedGraph, typed_graph
from trtconvert.progress import Progress
from trtconvert.verify import enforce
from visionrt.errors import AccuracyError, ModelError
from visionrt.metrics import Agreement


def choose_precision(
    clean: ModelProto,
    evidence: Evidence,
    options: BuildOptions,
    progress: Progress,
    warnings: list[str],
) -> tuple[TypedGraph, Agreement]:
    """The typed graph, and how well it agrees with the original model.

    Args:
        clean: the float32 graph to write precisions into.
        evidence: the original model and images.
        options: ``auto`` tries int8 (with calibration images), fp16 and fp32 in this order.
        progress: told of calibration and verification.
        warnings: what to tell the user is appended here.

    Raises:
        AccuracyError: the named precision, or for ``auto`` every one, loses more than is allowed.
        UsageError: a limit for a metric that this task does not have.
        InputDataError: no usable images.
        ModelError: a graph that does not run or cannot be typed.
    """
    evidence.check(options.allowed_drop)
    *faster, last = _candidates(options)
    for precision in faster:
        try:
            return _attempt(clean, precision, evidence, options, progress, warnings)
        except (AccuracyError, ModelError) as error:
            warnings.append(f"{precision} was not taken: {error.got}")
    return _attempt(clean, last, evidence, options, progress, warnings)


def _attempt(
    clean: ModelProto,
    precision: str,
    evidence: Evidence,
    options: BuildOptions,
    progress: Progress,
    warnings: list[str],
) -> tuple[TypedGraph, Agreement]:
    calibration = options.calibration if precision == "int8" else None
    typed = typed_graph(clean, evidence.recipe, precision, calibration, progress)
    agreement = evidence.compare(typed.measured, progress)
    if options.allowed_drop is not None:
        enforce(agreement, options.allowed_drop)
    if typed.twin_precision != "fp32":
        # The CPU's integer kernels round in places of their own.
        twin = evidence.compare(typed.twin, progress, optimize=True)
        details = {**agreement.details, "twin_agreement": twin.agreement}
        agreement = dataclasses.replace(agreement, details=details)
    warnings += dict.fromkeys([*typed.warnings, *agreement.warnings])
    return typed, agreement


def _candidates(options: BuildOptions) -> Sequence[str]:
    if options.precision != "auto":
        return (options.precision,)
    return ("int8", "fp16", "fp32") if options.calibration is not None else ("fp16", "fp32")
