"""Evens out channels where it pays: measured at the raw answers, on images kept apart.

Three short passes decide, on a few images each: the largest value of each channel, and for the
graph with and without factors, ranges on some images and the noise of int8 on some others. Ranges
that are tight around each channel may clip what other images hold; the images kept apart show that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from trtconvert.calibration.collect import collect, float_output, with_outputs
from trtconvert.calibration.holdout import split_for_tuning
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.ranges import threshold
from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import FreshNames, GraphView
from trtconvert.passes.equalize import ChannelGroup, channel_factors, equalize, find_groups
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import insert_qdq
from trtconvert.progress import Progress
from trtconvert.search.noise import AnswerNoise
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

# Images of the short passes; the largest of a channel takes longest to settle.
_PEAKS, _RANGING, _APART = 16, 8, 6
# What the factors must leave of the noise.
_MOST_LEFT = 0.8

Factors = dict[str, NDArray[np.float32]]


def equalized(
    view: GraphView,
    images: ImageReader,
    options: CalibrationOptions,
    weights: Mapping[str, float],
    progress: Progress,
) -> tuple[GraphView, Factors]:
    """The graph to quantize, and the factors in it by the first tensor of each group.

    Args:
        view: of the float32 graph.
        images: to calibrate on.
        options: how ranges are chosen.
        weights: of the raw answers.
        progress: called after each image.

    Returns:
        ``view`` itself and no factors where there is nothing to even out, or no gain.
    """
    groups = find_groups(view)
    if not groups:
        return view, {}
    peaks = _channel_peaks(view, groups, images.some(_PEAKS), progress)
    factors = {group.tensors[0]: channel_factors(view, group, peaks) for group in groups}
    candidate = with_factors(view, factors)
    files, apart_files = split_for_tuning(images.files)
    ranging, apart = images.of(files[:_RANGING]), images.of(apart_files[:_APART])
    noise = AnswerNoise(view, apart, weights)
    plain, evened = (
        noise(_quantized(form, ranging, options, progress)) for form in (view, candidate)
    )
    return (candidate, factors) if evened < _MOST_LEFT * plain else (view, {})


def with_factors(view: GraphView, factors: Mapping[str, NDArray[np.float32]]) -> GraphView:
    """The graph with the channels of each group divided by its factors."""
    groups = find_groups(view)
    by_position = {
        position: factors[group.tensors[0]]
        for position, group in enumerate(groups)
        if group.tensors[0] in factors and len(factors[group.tensors[0]]) == group.channels
    }
    return GraphView(equalize(view, by_position, groups)) if by_position else view


def _channel_peaks(
    view: GraphView, groups: Sequence[ChannelGroup], images: ImageReader, progress: Progress
) -> dict[str, NDArray[np.float32]]:
    nodes = view.model.graph.node
    read = dict.fromkeys(nodes[index].input[0] for group in groups for index in group.readers)
    model, outputs = _peak_graph(view, list(read))
    backend = OnnxRuntimeBackend(model.SerializeToString(), in_order=True)
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
    outputs = []
    for name in tensors:
        magnitude, peak = names(f"{name}_magnitude"), names(f"{name}_peak")
        out.graph.node.append(helper.make_node("Abs", [name], [magnitude]))
        out.graph.node.append(helper.make_node("ReduceMax", [magnitude, axes], [peak], keepdims=0))
        outputs.append(peak)
    del out.graph.output[:]
    out.graph.output.extend(float_output(name) for name in outputs)
    return out, outputs


def _quantized(
    view: GraphView, ranging: ImageReader, options: CalibrationOptions, progress: Progress
) -> ModelProto:
    """The int8 graph, with ranges from a few images."""
    placement = place_int8(view)
    histograms = collect(view, placement.activations, ranging, progress)
    thresholds = {name: threshold(h, options) for name, h in histograms.items()}
    return insert_qdq(view, placement, thresholds)
