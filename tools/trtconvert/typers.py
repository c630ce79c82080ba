"""Makes typed graphs of one model: what is measured once, and the graphs that follow from it.

A typer calibrates when it is made. Its ``typed`` is quick and may be called again with other nodes
raised to a wider precision, which is what a search does.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtconvert.calibration.equalizing import Factors, calibrated, with_factors
from trtconvert.calibration.layer_errors import LayerError, measure_layer_errors
from trtconvert.calibration.noise_budget import SPARE_SHARE, least_snr_db, over_budget, spare
from trtconvert.calibration.options import CalibrationOptions, CalibrationReport
from trtconvert.calibration.peaks import measure_peaks
from trtconvert.calibration.ranges import threshold
from trtconvert.calibration.reader import ImageReader
from trtconvert.calibration.table import read_factors, read_table
from trtconvert.decision import Decision
from trtconvert.graph_view import GraphView, lift_constants, node_name
from trtconvert.passes.half import convert_to_half
from trtconvert.passes.half_types import FP16, HalfType
from trtconvert.passes.placement import Placement, place_int8
from trtconvert.passes.quantize import insert_qdq, raise_opset
from trtconvert.passes.uint8 import with_uint8_activations
from trtconvert.progress import Progress
from trtconvert.search.answers import answer_weights
from trtconvert.search.cost import added_cost, flops_by_precision, node_flops
from trtconvert.search.noise import AnswerNoise, int8_noise
from trtconvert.typed import TypedGraph
from trtconvert.weights import WeightFile
from visionrt.errors import ModelError, UsageError
from visionrt.recipe import Recipe

Reasons = Mapping[str, str]
_CORRECTIONS = 3
# Mean errors per channel settle within a few images: each has thousands of values.
_ERROR_IMAGES = 16
_RANKING_IMAGES = 2
_NOISE_IMAGES = 8
# Eight images do not tell noise any closer.
_TOLERANCE_DB = 0.3


class Typer(Protocol):
    """Makes typed graphs of one precision.

    Attributes:
        view: of the float32 graph that is typed.
    """

    view: GraphView

    def typed(self, raised: Reasons | None = None, float32: Reasons | None = None) -> TypedGraph:
        """The typed graph.

        Args:
            raised: reasons by name of nodes that are not int8.
            float32: reasons by name of nodes that are not float16 or bfloat16.
        """
        ...


class Fp32Typer:
    """Leaves the graph as it is."""

    def __init__(self, clean: ModelProto) -> None:
        self.clean = clean
        # Control flow stays as it is: nothing inside is typed.
        self.view = GraphView(lift_constants(clean), flat=False)

    def typed(self, raised: Reasons | None = None, float32: Reasons | None = None) -> TypedGraph:
        """The graph itself, whatever is raised."""
        decisions = [
            Decision(node.name, node.op_type, "fp32", "as exported")
            for node in self.clean.graph.node
        ]
        flops = flops_by_precision(self.view, decisions)
        return TypedGraph(
            *("fp32", self.clean, self.clean, "fp32", tuple(decisions)),
            flops_by_precision=flops,
        )


class HalfTyper:
    """float16 or bfloat16, by the rules of :mod:`trtconvert.passes.half_rules`."""

    def __init__(
        self,
        clean: ModelProto,
        recipe: Recipe,
        options: CalibrationOptions | None,
        progress: Progress,
        half: HalfType = FP16,
    ) -> None:
        self.half = half
        clean = raise_opset(clean, half.opset)
        self.clean = clean
        self.view = GraphView(lift_constants(clean))
        self._peaks: dict[str, float] = {}
        if options is not None and options.images:
            view = GraphView(raise_opset(lift_constants(clean)))
            self._peaks = measure_peaks(view, reader_for(view, recipe, options), progress)

    def typed(self, raised: Reasons | None = None, float32: Reasons | None = None) -> TypedGraph:
        """The 16-bit graph; ``raised`` has nothing to act on."""
        model, decisions = convert_to_half(self.clean, self._peaks, float32, self.half)
        return TypedGraph(
            *(self.half.name, model, self.clean, "fp32", tuple(decisions)),
            flops_by_precision=flops_by_precision(self.view, decisions),
        )


class Int8Typer:
    """int8 where :mod:`trtconvert.passes.placement` puts it, float16 elsewhere.

    Attributes:
        thresholds: absolute value that maps to 127, by tensor name.
        weights: how much each raw answer counts.
        report: None where no image was read.

    Args:
        weight_file: where ``clean`` keeps its large constants, if it does.
    """

    def __init__(
        self,
        clean: ModelProto,
        recipe: Recipe,
        options: CalibrationOptions | None,
        progress: Progress,
        weight_file: WeightFile | None = None,
    ) -> None:
        if options is None or (not options.images and options.ranges is None):
            raise UsageError(
                "calibration images for int8",
                got="none",
                fix="Give a folder of typical images with --calib, or a table with --ranges.",
            )
        self._file = weight_file or WeightFile()
        graph = raise_opset(self._file.aside(lift_constants(clean)))
        self.view = GraphView(graph, weights=self._file)
        self.weights = answer_weights(self.view, recipe)
        self._noisy: dict[str, str] = {}
        self._errors: dict[int, LayerError] = {}
        self._warnings: list[str] = []
        self.report: CalibrationReport | None = None
        self._factors: Factors = {}
        self._least_db = (
            least_snr_db(recipe.task, recipe.head)
            if options.least_total_snr_db is None
            else options.least_total_snr_db
        )
        if not place_int8(self.view).nodes:
            raise ModelError(
                "a Conv, Gemm or MatMul with constant weights, for int8",
                got="none",
                fix="Use --precision fp16.",
            )
        self._calibrate(recipe, options, progress)

    def placement(self, raised: Reasons | None = None) -> Placement:
        """Where int8 goes when the nodes in ``raised`` stay float."""
        return place_int8(self.view, keep={**self._noisy, **(raised or {})}, dead=self._dead)

    def typed(self, raised: Reasons | None = None, float32: Reasons | None = None) -> TypedGraph:
        """The int8 graph over a float16 remainder."""
        placement = self.placement(raised)
        quantized = self._file.whole(
            insert_qdq(self.view, placement, self.thresholds, self._bias_errors)
        )
        model, fp16_decisions = convert_to_half(quantized, keep=float32)
        decisions = _merged(placement, fp16_decisions)
        return TypedGraph(
            *("int8", model, with_uint8_activations(quantized), "int8", decisions),
            self.thresholds,
            self.report,
            tuple(self._warnings),
            flops_by_precision(self.view, decisions),
            self._factors,
        )

    def _calibrate(self, recipe: Recipe, options: CalibrationOptions, progress: Progress) -> None:
        start = time.perf_counter()
        reader = reader_for(self.view, recipe, options) if options.images else None
        if options.ranges is not None:
            self._factors = read_factors(options.ranges)
            self.view = with_factors(self.view, self._factors)
            activations = place_int8(self.view).activations
            self.thresholds, method = read_table(options.ranges, activations)
        else:
            assert reader is not None, "without a table there are images"
            self.view, self._factors, histograms = calibrated(
                self.view, reader, options, self.weights, progress
            )
            self.thresholds = {name: threshold(h, options) for name, h in histograms.items()}
            method = options.method
        view = self.view
        placement = place_int8(view)
        self._dead = frozenset(name for name, value in self.thresholds.items() if value == 0.0)
        if self._dead:
            placement = place_int8(view, dead=self._dead)
        if reader is not None and placement.nodes:
            some = reader.some(_ERROR_IMAGES)
            self._errors = measure_layer_errors(view, placement, self.thresholds, some, progress)
        correct = self._errors if options.bias_correction else {}
        self._bias_errors: dict[int, NDArray[np.float32]] = {
            index: error.channel_mean for index, error in correct.items()
        }
        if reader is not None and self._errors:
            self._keep_noisy_float(reader, options, progress)
        if reader is not None:
            seconds = time.perf_counter() - start
            self.report = CalibrationReport(len(reader), seconds, method, peak_rss_bytes())
            self._warnings = reader.warnings()

    def _keep_noisy_float(
        self, reader: ImageReader, options: CalibrationOptions, progress: Progress
    ) -> None:
        """Keep layers float until the raw answers have the signal to noise asked for."""
        self._noisy = _noisy_alone(self.view, self._errors, options.least_snr_db)
        if self._least_db == 0:
            return
        measure = AnswerNoise(self.view, islice(reader, _NOISE_IMAGES), self.weights)
        least_db = self._least_db
        # By how much is of no interest yet.
        if self._missing_db(measure, most=10 ** (-least_db / 10)) <= 0:
            return
        alone, placement = dict(self._noisy), self.placement()
        images = islice(reader, _RANKING_IMAGES)
        noise = int8_noise(self.view, placement, self.thresholds, images, self.weights, progress)
        nodes = {node_name(node): node for node in self.view.model.graph.node}
        added = {name: added_cost(self.view, nodes[name]) for name in noise}
        for _ in range(_CORRECTIONS):
            self._noisy = alone | {
                name: f"int8 everywhere leaves less than {self._least_db:g} dB at the "
                f"answers; this node alone leaves {-_decibels(noise[name]):.1f} dB"
                for name in over_budget(noise, added, least_db)
            }
            missing_db = self._missing_db(measure)
            if missing_db <= _TOLERANCE_DB:
                self._spend_spare(noise, added)
                return
            # Noises that add up to more than their sum: ask for as much more as is missing.
            least_db += missing_db

    def _spend_spare(self, noise: Mapping[str, float], added: Mapping[str, float]) -> None:
        """Keep further layers float where so few multiplications are that it costs little."""
        flops = {
            node_name(node): node_flops(self.view, node) for node in self.view.model.graph.node
        }
        kept = [name for name, count in flops.items() if count and name not in noise]
        kept += [name for name in noise if name in self._noisy]
        most = (1 - SPARE_SHARE) * sum(flops.values())
        self._noisy |= {
            name: f"int8 brings {_decibels(noise[name]):.1f} dB of noise here, and float "
            "costs little"
            for name in spare(noise, added, flops, kept, most)
        }

    def _missing_db(self, measure: AnswerNoise, *, most: float = math.inf) -> float:
        placement = self.placement()
        if not placement.nodes:
            return 0.0
        quantized = insert_qdq(
            self.view, placement, self.thresholds, self._bias_errors, stored=False
        )
        return self._least_db + _decibels(measure(quantized, most=most))


def reader_for(view: GraphView, recipe: Recipe, options: CalibrationOptions) -> ImageReader:
    """Reads the images of ``options`` at the batch size that the graph wants."""
    shape = view.shape[view.inputs[0]]
    batch = shape[0] if shape and isinstance(shape[0], int) else 1
    return ImageReader(options.images, recipe.preprocess, count=options.count, batch=batch)


def _decibels(share: float) -> float:
    return 10 * math.log10(max(share, 1e-30))


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB.
    return peak if sys.platform == "darwin" else peak * 1024


def _noisy_alone(
    view: GraphView, errors: Mapping[int, LayerError], least_db: float
) -> dict[str, str]:
    nodes = view.model.graph.node
    return {
        node_name(nodes[index]): f"int8 leaves {error.snr_db:.1f} dB of signal to noise"
        for index, error in errors.items()
        if error.snr_db < least_db
    }


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
