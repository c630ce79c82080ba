"""Runs the float32 graph on calibration images and keeps histograms of chosen tensors.

Of each tensor, two things leave the ONNX Runtime session: its largest magnitude, and at most
``MOST_VALUES`` of its values at even steps. So one pass serves all tensors, and needs the memory
of the model's own largest layers, whatever the number of tensors and images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from trtconvert.calibration.histogram import Histogram
from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import FreshNames, GraphView, replace_nodes
from trtconvert.progress import Progress
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

# Per tensor and image. A range is settled by the values of all images together.
MOST_VALUES = 1 << 15


def collect(
    view: GraphView,
    tensors: Sequence[str],
    images: ImageReader,
    progress: Progress,
    *,
    most_values: int = MOST_VALUES,
) -> dict[str, Histogram]:
    """Histograms of ``tensors`` over all images; their peaks are those of every value.

    Args:
        view: of the float32 graph (opset 18 or newer); it must have one input.
        tensors: names of float tensors of the graph.
        images: read once.
        progress: called after each image.
        most_values: of a tensor of one image that are counted.

    Raises:
        ModelError: a tensor is not finite on some image.
        InputDataError: no image can be read.
    """
    histograms = {name: Histogram(name) for name in tensors}
    model, outputs = _tapped(view, tensors, most_values)
    backend = OnnxRuntimeBackend(model.SerializeToString(), in_order=True)
    del model
    for done, tensor in enumerate(images, 1):
        results = backend.run({view.inputs[0]: tensor})
        for name, (peak, values) in zip(tensors, outputs, strict=True):
            sample = results.pop(values)
            # A batch that is filled up holds its last image several times.
            sample = sample[: len(sample) - images.repeated] if len(sample) > 1 else sample
            histograms[name].update(sample, float(results.pop(peak)))
        progress("Calibrating", done, max(len(images), done))
    return histograms


def sampling_step(shape: Sequence[int], most_values: int) -> int:
    """The least step that leaves at most ``most_values`` and meets every column of a tensor.

    A step that shares a divisor with the width would count some columns and never the others.
    """
    step = math.ceil(math.prod(shape) / most_values)
    while step > 1 and math.gcd(step, shape[-1]) > 1:
        step += 1
    return max(step, 1)


def _tapped(
    view: GraphView, tensors: Sequence[str], most_values: int
) -> tuple[ModelProto, list[tuple[str, str]]]:
    """The graph, and per tensor the outputs with its largest magnitude and with some values."""
    out = with_outputs(view.model, tensors)
    names = FreshNames(out)
    constants: dict[tuple[int, ...], str] = {}
    batch = (view.shape[view.inputs[0]] or (1,))[0]
    nodes: list[Any] = []
    outputs: dict[str, tuple[str, str]] = {}

    def constant(*value: int) -> str:
        if value not in constants:
            constants[value] = names("constant_of_sample")
            array: NDArray[np.int64] = np.array(value, np.int64)
            out.graph.initializer.append(numpy_helper.from_array(array, constants[value]))
        return constants[value]

    def tap(name: str) -> None:
        magnitude, peak = names(f"{name}_magnitude"), names(f"{name}_peak")
        flat, sample = names(f"{name}_flat"), names(f"{name}_sample")
        # By image, so that the batch size has no say in what is counted.
        shape = view.static_shape(name) or ()
        by_image = len(shape) > 1 and (view.shape[name] or (None,))[0] == batch
        step = sampling_step(shape[1:] if by_image else shape, most_values)
        rows = constant(0, -1) if by_image else constant(1, -1)
        ends = constant(0), constant(np.iinfo(np.int64).max), constant(1), constant(step)
        nodes.extend(
            (
                helper.make_node("Abs", [name], [magnitude]),
                helper.make_node("ReduceMax", [magnitude], [peak], keepdims=0),
                helper.make_node("Reshape", [name, rows], [flat]),
                helper.make_node("Slice", [flat, *ends], [sample]),
            )
        )
        outputs[name] = peak, sample

    wanted = set(tensors)
    for name in wanted.intersection(view.inputs):
        tap(name)
    for node in list(out.graph.node):
        nodes.append(node)
        for name in node.output:
            if name in wanted:
                tap(name)
    replace_nodes(out.graph, nodes)
    del out.graph.output[:]
    pairs = [outputs[name] for name in tensors]
    out.graph.output.extend(float_output(name) for pair in pairs for name in pair)
    return out, pairs


def with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy whose only outputs are the float32 tensors ``names``, without what they don't need."""
    out = ModelProto()
    out.CopyFrom(model)
    del out.graph.output[:]
    out.graph.output.extend(float_output(name) for name in names)
    needed = set(names)
    nodes = []
    for node in reversed(out.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    nodes.reverse()
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    return out


def float_output(name: str) -> ValueInfoProto:
    """A float32 graph output of unstated shape."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
