"""Runs the float32 graph on calibration images and keeps histograms of chosen tensors.

Of each tensor, two things leave the ONNX Runtime session: its largest magnitude (that of each
channel, where channels are to be divided), and at most ``MOST_VALUES`` of its values at even steps.
So one pass serves all tensors, and needs the memory of the model's own largest layers, whatever the
number of tensors and images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from trtconvert.calibration.histogram import Histogram
from trtconvert.calibration.magnitude import peak_nodes
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
        divided: by name of a tensor ``[n, c, h, w]`` of known height and width, what to divide its
            channels by: float32 ``[c]``, above zero. Its histogram is in ``divided``.
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

    def keep(self, histograms: Iterable[Histogram]) -> None:
        """Let go of all other histograms, so that images to come are not counted there."""
        kept = {id(histogram) for histogram in histograms}
        self.plain = {name: h for name, h in self.plain.items() if id(h) in kept}
        self.divided = {name: h for name, h in self.divided.items() if id(h) in kept}

    def add(self, images: ImageReader, progress: Progress) -> None:
        """Count the values of images, which are read once.

        Raises:
            ModelError: a tensor is not finite on some image.
            InputDataError: no image can be read.
        """
        names = list(dict.fromkeys((*self.plain, *self.divided)))
        model, taps = _tapped(self._view, names, self.divided, self._most_values)
        backend = self._view.running(model, in_order=True)
        divisors: dict[tuple[str, int], NDArray[np.float32]] = {}
        for done, tensor in enumerate(images, 1):
            results = backend.run({self._view.inputs[0]: tensor})
            for name, tap in zip(names, taps, strict=True):
                peaks, sample = results.pop(tap.peaks), results.pop(tap.sample)
                # A batch that is filled up holds its last image several times.
                sample = sample[: len(sample) - images.repeated] if len(sample) > 1 else sample
                if name in self.plain:
                    self.plain[name].update(sample, float(peaks.max()))
                if name in self.divided:
                    key = name, sample.shape[1]
                    if key not in divisors:
                        divisors[key] = self._divisors(name, tap.step, sample.shape[1])
                    # Division keeps order: the largest value is that of the largest dividend.
                    peak = float((peaks / self._factors[name]).max())
                    self.divided[name].update(sample / divisors[key], peak)
            progress("Calibrating", done, max(len(images), done))

    def _divisors(self, name: str, step: int, count: int) -> NDArray[np.float32]:
        shape = self._view.static_shape(name)
        assert shape is not None, "a tensor with channels has a shape"
        return sample_divisors(self._factors[name], math.prod(shape[2:]), step, count)


def sampling_step(shape: Sequence[int], most_values: int) -> int:
    """The least step that leaves at most ``most_values`` and meets every column of a tensor.

    A step that shares a divisor with the width would count some columns and never the others.
    """
    step = math.ceil(math.prod(shape) / most_values)
    while step > 1 and math.gcd(step, shape[-1]) > 1:
        step += 1
    return max(step, 1)


def sample_divisors(
    factor: NDArray[np.float32], area: int, step: int, count: int
) -> NDArray[np.float32]:
    """float32 ``[count]``: the factor of the channel that each value of a sample is of.

    Args:
        factor: float32 ``[c]``, by channel.
        area: values of one channel.
        step: of the sample, over images of ``c * area`` values in a row.
    """
    images = math.ceil(count * step / (len(factor) * area))
    ends = -(-np.arange(1, images * len(factor) + 1) * area // step)
    counts = np.diff(np.minimum(ends, count), prepend=0)
    return np.repeat(np.tile(factor, images), counts)


class _Tap(NamedTuple):
    """What leaves the session of a tensor.

    Attributes:
        peaks: output with its largest magnitude, or those of its channels.
        sample: output ``[n, values]`` with some of its values.
        step: between the values of a sample.
    """

    peaks: str
    sample: str
    step: int


def _tapped(
    view: GraphView, tensors: Sequence[str], by_channel: Collection[str], most_values: int
) -> tuple[ModelProto, list[_Tap]]:
    """The graph, and the taps of its tensors; peaks are by channel for those in ``by_channel``."""
    out = with_outputs(view.model, tensors)
    names = FreshNames(out)
    constants: dict[tuple[int, ...], str] = {}
    batch = (view.shape[view.inputs[0]] or (1,))[0]
    wanted = set(tensors)
    taps: dict[str, _Tap] = {}

    def constant(*value: int) -> str:
        if value not in constants:
            constants[value] = names("constant_of_sample")
            array = np.array(value, np.int64)
            out.graph.initializer.append(numpy_helper.from_array(array, constants[value]))
        return constants[value]

    def tap(name: str) -> list[NodeProto]:
        if name not in wanted:
            return []
        axes = constant(0, 2, 3) if name in by_channel else None
        reducing, peaks = peak_nodes(view, name, names, axes)
        flat, sample = names(f"{name}_flat"), names(f"{name}_sample")
        # By image, so that the batch size has no say in what is counted.
        shape = view.static_shape(name) or ()
        by_image = len(shape) > 1 and (view.shape[name] or (None,))[0] == batch
        step = sampling_step(shape[1:] if by_image else shape, most_values)
        rows = constant(0, -1) if by_image else constant(1, -1)
        ends = constant(0), constant(np.iinfo(np.int64).max), constant(1), constant(step)
        taps[name] = _Tap(peaks, sample, step)
        return [
            *reducing,
            helper.make_node("Reshape", [name, rows], [flat]),
            helper.make_node("Slice", [flat, *ends], [sample]),
        ]

    add_behind(out.graph, view.inputs, tap)
    del out.graph.output[:]
    ordered = [taps[name] for name in tensors]
    for found in ordered:
        out.graph.output.extend((float_output(found.peaks), float_output(found.sample)))
    return out, ordered


def add_behind(
    graph: GraphProto, inputs: Iterable[str], nodes_for: Callable[[str], Iterable[NodeProto]]
) -> None:
    """Put nodes that read a tensor right behind the one that writes it, so that few live at a time.

    Args:
        graph: to add nodes to.
        inputs: of the graph; what reads them comes first.
        nodes_for: what to put behind the tensor of a name.
    """
    nodes = [node for name in inputs for node in nodes_for(name)]
    for node in list(graph.node):
        nodes.append(node)
        for name in node.output:
            nodes += nodes_for(name)
    replace_nodes(graph, nodes)


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
