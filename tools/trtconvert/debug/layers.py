"""Measures how far each node of a typed graph is from float32, on images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from trtconvert.calibration.reader import ImageReader
from trtconvert.debug.paired_graph import FIGURES, PairedGraph, pair_graphs
from trtconvert.decision import Decision
from trtconvert.graph import opset_of
from trtconvert.graph_view import GraphView, lift_constants, node_name
from trtconvert.passes.quantize import raise_opset
from trtconvert.progress import Progress, silent
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

SORTS = ("snr", "loss", "max", "order")

# How a node's figures came out; only with MEASURED is there a signal-to-noise ratio.
MEASURED, EXACT, NOT_FINITE, SILENT = "measured", "exact", "not finite", "silent"
NOT_MAPPED, NO_FLOATS = "not mapped", "no floats"


@dataclass(frozen=True)
class LayerFigures:
    """One node of the clean graph: its output in the typed graph against float32, over all images.

    The error holds what came in with the node's inputs. Figures are None where there are none.

    Attributes:
        order: position in the graph, from 0.
        node, op_type: of the clean graph.
        precision, reason: of the decision.
        status: ``measured``; ``exact`` (no error at all); ``not finite`` (infinity or NaN);
            ``silent`` (float32 gives zeros alone, the typed graph does not); ``not mapped``;
            ``no floats`` (the node makes integers or booleans).
        snr_db: signal over noise, ``10·log10(Σ reference² / Σ error²)``.
        loss_db: by how much that is below the worst of the node's inputs.
        cosine: of the two outputs.
        max_error: largest absolute error.
        low, high: range in float32.
        note: why it is not mapped.
    """

    order: int
    node: str
    op_type: str
    precision: str
    reason: str
    status: str
    snr_db: float | None = None
    loss_db: float | None = None
    cosine: float | None = None
    max_error: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


def measure_layers(
    clean: ModelProto,
    measured: ModelProto,
    decisions: Iterable[Decision],
    images: ImageReader,
    progress: Progress = silent,
) -> list[LayerFigures]:
    """Figures of every node of the clean graph, in its order; blocks.

    One pass over the images, in one session. No tensor leaves it, only six numbers per tensor;
    inside, what both graphs have alive at a time is held, and one tensor's difference in float64.

    Args:
        clean: the float32 graph.
        measured: what verification runs; see :attr:`trtconvert.precision.TypedGraph.measured`.
        decisions: of the same typed graph.
        images: read once.
        progress: called after each image.

    Raises:
        ModelError: a graph that does not run.
        InputDataError: no image can be read.
    """
    # Typing raises the operator set for int8; the names stay.
    reference = GraphView(raise_opset(lift_constants(clean), opset_of(measured)))
    paired = pair_graphs(reference, GraphView(measured))
    sums = _run(paired, reference.inputs[0], images, progress)
    return _Rows(reference, paired, sums, decisions).rows()


def sort_layers(layers: Sequence[LayerFigures], by: str) -> list[LayerFigures]:
    """The worst first by one of ``SORTS``; what has no figures comes last, in the graph's order."""
    if by == "order":
        return sorted(layers, key=lambda layer: layer.order)
    keys = {"snr": _snr_key, "loss": _loss_key, "max": _max_key}
    return sorted(layers, key=lambda layer: (keys[by](layer), layer.order))


def _snr_key(layer: LayerFigures) -> float:
    if layer.status in (NOT_FINITE, SILENT):
        return -math.inf
    return math.inf if layer.snr_db is None else layer.snr_db


def _loss_key(layer: LayerFigures) -> float:
    if layer.status in (NOT_FINITE, SILENT):
        return -math.inf
    return math.inf if layer.loss_db is None else -layer.loss_db


def _max_key(layer: LayerFigures) -> float:
    if layer.status == NOT_FINITE:
        return -math.inf
    return math.inf if layer.max_error is None else -layer.max_error


Sums = dict[str, NDArray[np.float64]]


def _run(paired: PairedGraph, image_input: str, images: ImageReader, progress: Progress) -> Sums:
    """Figures by tensor, summed over the images; of the extremes, the most extreme."""
    backend = OnnxRuntimeBackend(paired.model.SerializeToString(), optimize=False, in_order=True)
    sums: Sums = {}
    try:
        for done, tensor in enumerate(images, 1):
            results = backend.run({image_input: tensor})
            for name, outputs in paired.figures.items():
                values = np.array([float(results[output]) for output in outputs])
                sums[name] = _joined(sums[name], values) if name in sums else values
            progress("Measuring layers", done, max(len(images), done))
    finally:
        backend.close()
    return sums


def _joined(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Figures of two disjoint sets of values, of their union; in the order of ``FIGURES``."""
    out: NDArray[np.float64] = a + b
    out[3], out[4], out[5] = max(a[3], b[3]), min(a[4], b[4]), max(a[5], b[5])
    return out


class _Rows:
    def __init__(
        self,
        reference: GraphView,
        paired: PairedGraph,
        sums: Sums,
        decisions: Iterable[Decision],
    ) -> None:
        self._reference = reference
        self._paired = paired
        self._sums = sums
        self._decisions = {decision.node: decision for decision in decisions}

    def rows(self) -> list[LayerFigures]:
        nodes = self._reference.model.graph.node
        return [self._row(order, node) for order, node in enumerate(nodes)]

    def _row(self, order: int, node: NodeProto) -> LayerFigures:
        label = node_name(node)
        known = self._decisions.get(label)
        head = (order, label, node.op_type)
        decided = (known.precision, known.reason) if known else ("unknown", "no decision on it")
        tensors = [n for n in node.output if self._reference.elem_type.get(n) == TensorProto.FLOAT]
        compared = [self._sums[name] for name in tensors if name in self._sums]
        if not compared:
            reasons = [f"{n}: {self._paired.unmapped.get(n, 'no image')}" for n in tensors]
            status = NOT_MAPPED if tensors else NO_FLOATS
            return LayerFigures(*head, *decided, status, note="; ".join(reasons))
        figures = compared[0]
        for more in compared[1:]:
            figures = _joined(figures, more)
        status, values = _figures(dict(zip(FIGURES, figures.tolist(), strict=True)))
        if "snr_db" in values:
            values["loss_db"] = self._loss_db(node, values["snr_db"])
        return LayerFigures(*head, *decided, status, **values)

    def _loss_db(self, node: NodeProto, snr_db: float) -> float | None:
        """Drop below the worst input; None where every input is exact: there the error begins."""
        known = [self._sums[name] for name in node.input if name in self._sums]
        inputs = [_snr_db(float(s[0]), float(s[1])) for s in known]
        worst = min(inputs, default=math.inf)
        return worst - snr_db if math.isfinite(worst) else None


def _figures(sums: Mapping[str, float]) -> tuple[str, dict[str, Any]]:
    """Status, and the figures that there are."""
    power, error, product = (sums[key] for key in ("power", "error_power", "product"))
    values: dict[str, Any] = {"low": sums["low"], "high": sums["high"]}
    if not math.isfinite(error) or not math.isfinite(power):
        return NOT_FINITE, {key: v for key, v in values.items() if math.isfinite(v)}
    values["max_error"] = sums["max_error"]
    if error == 0:
        return EXACT, values | {"cosine": 1.0}
    if power == 0:
        return SILENT, values | {"cosine": 0.0}
    # The other's power is that of reference + error. It can be 0: then nothing is left.
    other = power + 2 * product + error
    cosine = (power + product) / math.sqrt(power * other) if other > 0 else 0.0
    values |= {"snr_db": _snr_db(power, error), "cosine": min(max(cosine, -1.0), 1.0)}
    return MEASURED, values


def _snr_db(power: float, error: float) -> float:
    if not math.isfinite(error) or (power == 0 and error > 0):
        return -math.inf
    return 10 * math.log10(power / error) if error > 0 else math.inf
