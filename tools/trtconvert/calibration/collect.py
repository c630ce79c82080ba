"""Runs the float32 graph on calibration images and keeps histograms of chosen tensors.

Of each tensor, two things leave the ONNX Runtime session: its largest magnitude, and at most
``MOST_VALUES`` of its values at even steps. So one pass serves all tensors, and needs the memory
of the model's own largest layers, whatever the number of tensors and images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from trtconvert.calibration.histogram import Histogram
from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import FreshNames, GraphView, replace_nodes
from trtconvert.progress import Progress

# Per tensor and image. A range is settled by the values of all images together.
MOST_VALUES = 1 << 15


class Collector:
    """Histograms of some tensors, to which images may be added in several lots.

    Args:
        view: of the float32 graph (opset 18 or newer); it must have one input.
        tensors: names of float tensors of the graph.
        divided: by name of a tensor ``[n, c, h, w]``, what to divide its channels by: float32
            ``[c]``. Its histogram is in ``divided``.
        most_values: of a tensor of one image that are counted.

    Attributes:
        plain, divided: histograms by tensor name; their peaks are those of every value.
    """

    def __init__(
        self,
        view: GraphView,
        tensors: Sequence[str],
        divided: Mapping[str, NDArray[np.float32]] | None = None,
        *,
        most_values: int = MOST_VALUES,
    ) -> None:
        self._view = view
        self._factors = dict(divided or {})
        self._most_values = most_values
        self.plain = {name: Histogram(name) for name in tensors}
        self.divided = {name: Histogram(name) for name in self._factors}

    def add(self, images: ImageReader, progress: Progress) -> None:
        """Count the values of images, which are read once.

        Raises:
            ModelError: a tensor is not finite on some image.
            InputDataError: no image can be read.
        """
        model, taps = _tapped(self._view, list(self.plain), self._factors, self._most_values)
        histograms = [*self.plain.values(), *self.divided.values()]
        backend = self._view.running(model, in_order=True)
        for done, tensor in enumerate(images, 1):
            results = backend.run({self._view.inputs[0]: tensor})
            for histogram, (peak, values) in zip(histograms, taps, strict=True):
                sample = results.pop(values)
                # A batch that is filled up holds its last image several times.
                sample = sample[: len(sample) - images.repeated] if len(sample) > 1 else sample
                histogram.update(sample, float(results.pop(peak)))
            progress("Calibrating", done, max(len(images), done))


def sampling_step(shape: Sequence[int], most_values: int) -> int:
    """The least step that leaves at most ``most_values`` and meets every column of a tensor.

    A step that shares a divisor with the width would count some columns and never the others.
    """
    step = math.ceil(math.prod(shape) / most_values)
    while step > 1 and math.gcd(step, shape[-1]) > 1:
        step += 1
    return max(step, 1)


def _tapped(
    view: GraphView,
    tensors: Sequence[str],
    divided: Mapping[str, NDArray[np.float32]],
    most_values: int,
) -> tuple[ModelProto, list[tuple[str, str]]]:
    """The graph, and per tap the outputs with its largest magnitude and with some values."""
    out = with_outputs(view.model, [*tensors, *divided])
    names = FreshNames(out)
    constants: dict[tuple[int, ...], str] = {}
    batch = (view.shape[view.inputs[0]] or (1,))[0]
    nodes: list[Any] = []

    def store(value: NDArray[Any], label: str) -> str:
        name = names(label)
        out.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def constant(*value: int) -> str:
        if value not in constants:
            constants[value] = store(np.array(value, np.int64), "constant_of_sample")
        return constants[value]

    def tap(name: str, source: str) -> tuple[str, str]:
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
                helper.make_node("Abs", [source], [magnitude]),
                helper.make_node("ReduceMax", [magnitude], [peak], keepdims=0),
                helper.make_node("Reshape", [source, rows], [flat]),
                helper.make_node("Slice", [flat, *ends], [sample]),
            )
        )
        return peak, sample

    def tap_divided(name: str) -> tuple[str, str]:
        factor = store(divided[name].reshape(1, -1, 1, 1), f"{name}_factor")
        quotient = names(f"{name}_divided")
        nodes.append(helper.make_node("Div", [name, factor], [quotient]))
        return tap(name, quotient)

    plain: dict[str, tuple[str, str]] = {}
    scaled: dict[str, tuple[str, str]] = {}
    wanted = set(tensors)

    def tap_all(name: str) -> None:
        if name in wanted:
            plain[name] = tap(name, name)
        if name in divided:
            scaled[name] = tap_divided(name)

    for name in view.inputs:
        tap_all(name)
    for node in list(out.graph.node):
        nodes.append(node)
        for name in node.output:
            tap_all(name)
    replace_nodes(out.graph, nodes)
    del out.graph.output[:]
    pairs = [*(plain[name] for name in tensors), *(scaled[name] for name in divided)]
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
