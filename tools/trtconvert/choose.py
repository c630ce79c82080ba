"""Chooses the precision: types the graph, verifies it, and takes the fastest that holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from trtconvert.calibration.reader import ImageReader, image_files
from trtconvert.options import BuildOptions
from trtconvert.precision import TypedGraph, typed_graph
from trtconvert.progress import Progress
from trtconvert.verify import enforce, labels_beside, verify
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import AccuracyError, ModelError
from visionrt.metrics import Agreement, accumulator_for
from visionrt.pipeline import image_input
from visionrt.recipe import Recipe


@dataclass(frozen=True)
class Evidence:
    """What verification looks at: image files, and the accepted class ids of those with labels."""

    images: Sequence[Path] = ()
    labels: Mapping[str, frozenset[int]] = dataclasses.field(default_factory=dict)


def choose_precision(
    original: ModelProto,
    clean: ModelProto,
    recipe: Recipe,
    options: BuildOptions,
    progress: Progress,
    warnings: list[str],
) -> tuple[TypedGraph, Agreement]:
    """The typed graph, and how well it agrees with the original model.

    Args:
        original: the model as loaded: the reference, so that verification covers every pass.
        clean: the float32 graph to write precisions into.
        recipe: what the answers are and how they compare.
        options: ``auto`` tries int8 (with calibration images), fp16 and fp32 in this order.
        progress: told of calibration and verification.
        warnings: what to tell the user is appended here.

    Raises:
        AccuracyError: the named precision, or for ``auto`` every one, loses more than is allowed.
        UsageError: a limit for a metric that this task does not have.
        InputDataError: no usable images.
        ModelError: a graph that cannot be typed.
    """
    evidence = _evidence(options, recipe, warnings)
    _check_metric(options, recipe, evidence)
    reference = original.SerializeToString()
    _check_runs(reference, recipe)
    *faster, last = _candidates(options)
    for precision in faster:
        try:
            return _attempt(
                reference, clean, recipe, precision, options, evidence, progress, warnings
            )
        except (AccuracyError, ModelError) as error:
            warnings.append(f"{precision} was not taken: {error.got}")
    return _attempt(reference, clean, recipe, last, options, evidence, progress, warnings)


def _attempt(
    reference: bytes,
    clean: ModelProto,
    recipe: Recipe,
    precision: str,
    options: BuildOptions,
    evidence: Evidence,
    progress: Progress,
    warnings: list[str],
) -> tuple[TypedGraph, Agreement]:
    calibration = options.calibration if precision == "int8" else None
    typed = typed_graph(clean, recipe, precision, calibration, progress)
    agreement = verify(
        reference,
        typed.measured.SerializeToString(),
        recipe,
        evidence.images,
        progress,
        labels=evidence.labels,
    )
    if options.allowed_drop is not None:
        enforce(agreement, options.allowed_drop)
    if typed.twin_precision != "fp32":
        agreement = _with_twin(agreement, reference, typed, recipe, evidence, progress)
    warnings += [*typed.warnings, *(w for w in agreement.warnings if w not in typed.warnings)]
    return typed, agreement


def _with_twin(
    agreement: Agreement,
    reference: bytes,
    typed: TypedGraph,
    recipe: Recipe,
    evidence: Evidence,
    progress: Progress,
) -> Agreement:
    """Add the figure of the CPU twin, whose integer kernels round in places of their own."""
    twin = verify(
        reference,
        typed.twin.SerializeToString(),
        recipe,
        evidence.images,
        progress,
        optimize=True,
    )
    details = {**agreement.details, "twin_agreement": twin.agreement}
    return dataclasses.replace(agreement, details=details)


def _check_runs(reference: bytes, recipe: Recipe) -> None:
    """Refuse a model that does not run, before calibration finds out half-way.

    Raises:
        ModelError: with the node that fails.
    """
    backend = OnnxRuntimeBackend(reference)
    info = image_input(recipe, backend.inputs)
    batch = info.shape[0] if isinstance(info.shape[0], int) else 1
    spec = recipe.preprocess
    backend.run({info.name: np.zeros(spec.tensor_shape(batch), spec.dtype)})
    backend.close()


def _candidates(options: BuildOptions) -> Sequence[str]:
    if options.precision != "auto":
        return (options.precision,)
    return ("int8", "fp16", "fp32") if options.calibration is not None else ("fp16", "fp32")


def _evidence(options: BuildOptions, recipe: Recipe, warnings: list[str]) -> Evidence:
    if options.images is not None:
        labels = labels_beside(options.images) if recipe.task == "classify" else {}
        return Evidence(image_files(options.images), labels)
    calibration = options.calibration
    if calibration is None or not calibration.images:
        return Evidence()
    if options.precision in ("int8", "auto"):
        warnings.append("verified on the calibration images; give --images for others")
    reader = ImageReader(calibration.images, recipe.preprocess, count=calibration.count)
    return Evidence(reader.files)


def _check_metric(options: BuildOptions, recipe: Recipe, evidence: Evidence) -> None:
    """Refuse a limit for another metric now, not after calibration."""
    metric = accumulator_for(recipe.task).metric if evidence.images else "cosine"
    if options.allowed_drop is not None:
        enforce(Agreement(metric, len(evidence.images), 1.0), options.allowed_drop)
