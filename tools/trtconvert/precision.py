"""Makes the typed graph: the ONNX graph with every precision decision written in it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtconvert.calibration.collect import collect
from trtconvert.calibration.layer_errors import LayerError, measure_layer_errors
from trtconvert.calibration.options import CalibrationOptions, CalibrationReport
from trtconvert.calibration.peaks import measure_peaks
from trtconvert.calibration.ranges import threshold
from trtconvert.calibration.reader import ImageReader
from trtconvert.calibration.table import read_table
from trtconvert.decision import Decision, count_precisions
from trtconvert.graph_view import GraphView, lift_constants, node_name
from trtconvert.passes.emulate_fp16 import emulate_fp16
from trtconvert.passes.fp16 import convert_to_fp16
from trtconvert.passes.placement import Placement, place_int8
from trtconvert.passes.quantize import insert_qdq, raise_opset
from trtconvert.progress import Progress, silent
from visionrt.errors import ModelError, UsageError
from visionrt.recipe import Recipe

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class TypedGraph:
    """A typed graph and what goes with it.

    Attributes:
        precision: as asked for.
        model: what GPU builders take. ``int8`` is int8 with a float16 remainder.
        twin: what the CPU runs. A CPU gains nothing from float16, so the twin of ``fp16`` is the
            float32 graph; that of ``int8`` has a float32 remainder.
        twin_precision: ``fp32`` or ``int8``.
        measured: what verification runs for ``model``, with ``optimize=False``: its float16
            roundings are written out, since ONNX Runtime drops them.
        decisions: precision and reason of each node of the clean graph.
        thresholds: absolute value that maps to 127, by tensor name; empty unless ``int8``.
        calibration: None where no image was read.
        warnings: what to tell the user.
    """

    precision: str
    model: ModelProto
    twin: ModelProto
    twin_precision: str
    measured: ModelProto
    decisions: tuple[Decision, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibration: CalibrationReport | None = None
    warnings: tuple[str, ...] = ()

    @property
    def nodes_by_precision(self) -> dict[str, int]:
        """How many nodes of the clean graph have which precision."""
        return count_precisions(self.decisions)


def typed_graph(
    clean: ModelProto,
    recipe: Recipe,
    precision: str,
    calibration: CalibrationOptions | None = None,
    progress: Progress | None = None,
) -> TypedGraph:
    """The typed graph of a clean float32 graph; blocks while it calibrates.

    Args:
        clean: a flat, folded graph with named nodes; not changed.
        recipe: its preprocess spec reads the calibration images.
        precision: ``fp32``, ``fp16`` or ``int8``.
        calibration: needed for ``int8``; with images, ``fp16`` keeps tensors that come near its
            largest number in float32.
        progress: called after each calibration image.

    Raises:
        UsageError: an unknown precision, ``int8`` without calibration, or a table of ranges that
            does not fit.
        ModelError: control flow, a graph that cannot be converted, or nothing to quantize.
        InputDataError: calibration images are missing or unreadable.
    """
    if precision == "int8":
        return _int8(clean, recipe, calibration, progress or silent)
    if precision == "fp16":
        typed, decisions = convert_to_fp16(clean, _peaks(clean, recipe, calibration, progress))
        return TypedGraph(precision, typed, clean, "fp32", emulate_fp16(typed), tuple(decisions))
    if precision == "fp32":
        decisions = [
            Decision(node.name, node.op_type, "fp32", "as exported") for node in clean.graph.node
        ]
        return TypedGraph(precision, clean, clean, "fp32", clean, tuple(decisions))
    raise UsageError(
        f"a precision: {' | '.join(PRECISIONS)}", got=precision, fix="Name one of them."
    )


def _int8(
    clean: ModelProto, recipe: Recipe, options: CalibrationOptions | None, progress: Progress
) -> TypedGraph:
    if options is None or (not options.images and options.ranges is None):
        raise UsageError(
            "calibration images for int8",
            got="none",
            fix="Give a folder of typical images with --calib, or a table with --ranges.",
        )
    view = GraphView(raise_opset(lift_constants(clean)))
    placement = place_int8(view)
    if not placement.nodes:
        raise ModelError(
            "a Conv, Gemm or MatMul with constant weights, for int8",
            got="none",
            fix="Use --precision fp16.",
        )
    made = _calibrate(view, placement, recipe, options, progress)
    twin = insert_qdq(view, made.placement, made.thresholds, made.bias_errors)
    typed, fp16_decisions = convert_to_fp16(twin)
    return TypedGraph(
        "int8",
        typed,
        twin,
        "int8",
        emulate_fp16(typed),
        _merged(made.placement, fp16_decisions),
        made.thresholds,
        made.report,
        tuple(made.warnings),
    )


@dataclass
class _Calibrated:
    placement: Placement
    thresholds: dict[str, float]
    bias_errors: dict[int, NDArray[np.float32]]
    report: CalibrationReport | None
    warnings: list[str]


def _calibrate(
    view: GraphView,
    placement: Placement,
    recipe: Recipe,
    options: CalibrationOptions,
    progress: Progress,
) -> _Calibrated:
    start = time.perf_counter()
    reader = _reader(view, recipe, options) if options.images else None
    if options.ranges is not None:
        thresholds, method = read_table(options.ranges, placement.activations)
    elif reader is not None:
        histograms = collect(view, placement.activations, reader, progress)
        thresholds = {name: threshold(h, options) for name, h in histograms.items()}
        method = options.method
    dead = {name for name, value in thresholds.items() if value == 0.0}
    if dead:
        placement = place_int8(view, dead=dead)
    errors: dict[int, LayerError] = {}
    if reader is not None and placement.nodes:
        errors = measure_layer_errors(view, placement, thresholds, reader, progress)
        noisy = _noisy(view, errors, options.least_snr_db)
        if noisy:
            placement = place_int8(view, keep=noisy, dead=dead)
    correct = errors if options.bias_correction else {}
    bias_errors = {index: error.channel_mean for index, error in correct.items()}
    report = None
    if reader is not None:
        report = CalibrationReport(
            len(reader), time.perf_counter() - start, method, peak_rss_bytes()
        )
    warnings = reader.warnings() if reader is not None else []
    return _Calibrated(placement, thresholds, bias_errors, report, warnings)


def _noisy(view: GraphView, errors: Mapping[int, LayerError], least_db: float) -> dict[str, str]:
    nodes = view.model.graph.node
    return {
        node_name(nodes[index]): f"int8 leaves {error.snr_db:.1f} dB of signal to noise"
        for index, error in errors.items()
        if error.snr_db < least_db
    }


def _peaks(
    clean: ModelProto,
    recipe: Recipe,
    options: CalibrationOptions | None,
    progress: Progress | None,
) -> dict[str, float]:
    if options is None or not options.images:
        return {}
    view = GraphView(raise_opset(lift_constants(clean)))
    reader = _reader(view, recipe, options)
    return measure_peaks(view, reader, progress or silent)


def _reader(view: GraphView, recipe: Recipe, options: CalibrationOptions) -> ImageReader:
    shape = view.shape[view.inputs[0]]
    batch = shape[0] if shape and isinstance(shape[0], int) else 1
    return ImageReader(options.images, recipe.preprocess, count=options.count, batch=batch)


def _merged(placement: Placement, fp16: list[Decision]) -> tuple[Decision, ...]:
    """Decisions on the clean graph's nodes: int8 by placement, the rest as the fp16 pass said."""
    remainder = {decision.node: decision for decision in fp16}
    out = []
    for decision in placement.decisions:
        if decision.precision == "int8":
            out.append(decision)
            continue
        rest = remainder[decision.node]
        reason = decision.reason if rest.precision == "fp16" else rest.reason
        out.append(rest._replace(reason=reason))
    return tuple(out)


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB.
    return peak if sys.platform == "darwin" else peak * 1024
