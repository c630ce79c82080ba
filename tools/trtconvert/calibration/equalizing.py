"""Collects ranges, of channels evened out where that pays: measured at the raw answers.

1. The largest value of each channel, on a few images. Where channels are so even already that
   factors would spare little noise, all images are collected without.
2. The largest value of each channel, on a few more images.
3. Ranges of the graph with and without factors, at once.
4. The noise of int8 in both, on images kept apart until then. Ranges that are tight around each
   channel may clip what other images hold; the images kept apart show that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from trtconvert.calibration.collect import Collector, add_behind, float_output, with_outputs
from trtconvert.calibration.histogram import Histogram
from trtconvert.calibration.holdout import split_for_tuning
from trtconvert.calibration.magnitude import peak_nodes
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.ranges import threshold
from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import FreshNames, GraphView
from trtconvert.passes.equalize import (
    ChannelGroup,
    channel_factors,
    equalize,
    find_groups,
    spared_noise_db,
)
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import insert_qdq
from trtconvert.progress import Progress
from trtconvert.search.noise import AnswerNoise

# Images for the largest value of each channel: at first, and in all; and to measure noise on.
_FIRST, _PEAKS, _APART = 8, 16, 8
# Noise of activations that factors must spare, in decibels, the mean over convolutions: below it,
# they have gained nothing on any model that it was measured with.
_LEAST_SPARED_DB = 3.5
# How much further other images may reach in a group once it is evened out: its rare channels are
# then not what the first images showed.
_MOST_OVERSHOOT = 2.0
# What the factors must leave of the noise.
_MOST_LEFT = 0.8

Factors = dict[str, NDArray[np.float32]]


class Calibrated(NamedTuple):
    """What calibration found.

    Attributes:
        view: of the graph to quantize.
        factors: that are in it, by the first tensor of each group.
        histograms: of what int8 nodes read, over all images.
    """

    view: GraphView
    factors: Factors
    histograms: dict[str, Histogram]


def calibrated(
    view: GraphView,
    images: ImageReader,
    options: CalibrationOptions,
    weights: Mapping[str, float],
    progress: Progress,
) -> Calibrated:
    """The graph to quantize, and the histograms of its activations.

    Args:
        view: of the float32 graph.
        images: to calibrate on.
        options: how ranges are chosen.
        weights: of the raw answers.
        progress: called after each image.

    Returns:
        ``view`` itself and no factors where there is nothing to even out, or no gain.
    """
    activations = place_int8(view).activations
    groups = find_groups(view) if options.equalization else []
    factors = _promising_factors(view, groups, images, progress) if groups else {}
    if not factors:
        collector = Collector(view, activations)
        collector.add(images, progress)
        return Calibrated(view, {}, collector.plain)
    evened_activations = place_int8(with_factors(view, factors)).activations
    divided = {
        name: factors[group.tensors[0]]
        for group in groups
        for name in group.tensors
        if name in evened_activations
    }
    collector = Collector(view, list(dict.fromkeys((*activations, *evened_activations))), divided)
    files, apart_files = split_for_tuning(images.files)
    collector.add(images.of(files), progress)
    factors = {
        group.tensors[0]: factors[group.tensors[0]]
        for group in groups
        if _overshoot(group, collector) <= _MOST_OVERSHOOT
    }
    evened = collector.plain | {
        name: collector.divided[name]
        for group in groups
        for name in group.tensors
        if name in divided and group.tensors[0] in factors
    }
    candidate = with_factors(view, factors)
    apart = list(images.of(apart_files[:_APART], may_be_empty=True)) if factors else []
    pays = False
    if apart:
        noise = AnswerNoise(view, apart, weights)
        most = _MOST_LEFT * noise(_quantized(view, collector.plain, options))
        pays = noise(_quantized(candidate, evened, options), most=most) < most
    final = (
        Calibrated(candidate, factors, evened) if pays else Calibrated(view, {}, collector.plain)
    )
    names = place_int8(final.view).activations
    histograms = {name: final.histograms[name] for name in names}
    if rest := [path for path in apart_files if path not in files]:
        collector.keep(histograms.values())
        collector.add(images.of(rest, may_be_empty=True), progress)
    return final._replace(histograms=histograms)


def _promising_factors(
    view: GraphView, groups: Sequence[ChannelGroup], images: ImageReader, progress: Progress
) -> Factors:
    """Factors of all groups, or none where they would spare little."""
    first = images.some(_FIRST)
    peaks = channel_peaks(view, groups, first, progress)
    spared = [
        decibels
        for group in groups
        for decibels in spared_noise_db(view, group, channel_factors(view, group, peaks))
    ]
    if np.mean(spared) < _LEAST_SPARED_DB:
        return {}
    files = [path for path in images.some(_PEAKS).files if path not in first.files]
    if files:
        more = channel_peaks(view, groups, images.of(files, may_be_empty=True), progress)
        peaks = {name: np.maximum(peak, more.get(name, 0)) for name, peak in peaks.items()}
    return {group.tensors[0]: channel_factors(view, group, peaks) for group in groups}


def _overshoot(group: ChannelGroup, collector: Collector) -> float:
    """Largest value of the evened tensors of a group over what it is meant to be: as before."""
    peaks = [
        (collector.divided[name].peak, collector.plain[name].peak)
        for name in group.tensors
        if name in collector.divided
    ]
    return max((evened / plain for evened, plain in peaks if plain > 0), default=1.0)


def with_factors(view: GraphView, factors: Mapping[str, NDArray[np.float32]]) -> GraphView:
    """The graph with the channels of each group divided by its factors."""
    groups = find_groups(view)
    by_position = {
        position: factors[group.tensors[0]]
        for position, group in enumerate(groups)
        if group.tensors[0] in factors and len(factors[group.tensors[0]]) == group.channels
    }
    if not by_position:
        return view
    return GraphView(equalize(view, by_position, groups), weights=view.weights)


def channel_peaks(
    view: GraphView, groups: Sequence[ChannelGroup], images: ImageReader, progress: Progress
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of each channel, over all images, of what the readers of groups read.

    Returns:
        float32 ``[c]`` by tensor name.
    """
    nodes = view.model.graph.node
    read = dict.fromkeys(nodes[index].input[0] for group in groups for index in group.readers)
    model, outputs = _peak_graph(view, list(read))
    backend = view.running(model, in_order=True)
    peaks: dict[str, NDArray[np.float32]] = {}
    for done, tensor in enumerate(images, 1):
        results = backend.run({view.inputs[0]: tensor})
        for name, output in zip(read, outputs, strict=True):
            peaks[name] = np.maximum(peaks.get(name, np.float32(0)), results[output])
        progress("Measuring channels", done, max(len(images), done))
    return peaks


def _peak_graph(view: GraphView, tensors: list[str]) -> tuple[ModelProto, list[str]]:
    """Per tensor, the largest magnitude of each channel; only that leaves the session."""
    out = with_outputs(view.model, tensors)
    names = FreshNames(out)
    axes = names("axes_of_peak")
    all_but_channels = np.array([0, 2, 3], np.int64)
    out.graph.initializer.append(numpy_helper.from_array(all_but_channels, axes))
    outputs: dict[str, str] = {}
    wanted = set(tensors)

    def reduced(name: str) -> list[NodeProto]:
        if name not in wanted:
            return []
        nodes, outputs[name] = peak_nodes(view, name, names, axes)
        return nodes

    add_behind(out.graph, view.inputs, reduced)
    del out.graph.output[:]
    out.graph.output.extend(float_output(outputs[name]) for name in tensors)
    return out, [outputs[name] for name in tensors]


def _quantized(
    view: GraphView, histograms: Mapping[str, Histogram], options: CalibrationOptions
) -> ModelProto:
    """The int8 graph with ranges as they are so far."""
    placement = place_int8(view)
    thresholds = {name: threshold(histograms[name], options) for name in placement.activations}
    return insert_qdq(view, placement, thresholds, stored=False)
