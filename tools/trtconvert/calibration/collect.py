"""Runs the float32 graph on calibration images and keeps histograms of chosen tensors.

The tensors are outputs of an ONNX Runtime session; after each image they are counted and
dropped. Where all of them together would need more than ``MOST_BYTES``, they are measured in
several passes over the images, each with a graph that ends at its last tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from trtconvert.calibration.histogram import Histogram
from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import GraphView
from trtconvert.progress import Progress
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

MOST_BYTES = 256 << 20


def collect(
    view: GraphView,
    tensors: Sequence[str],
    images: ImageReader,
    progress: Progress,
    *,
    most_bytes: int = MOST_BYTES,
) -> dict[str, Histogram]:
    """Histograms of ``tensors`` over all images.

    Args:
        view: of the float32 graph; it must have one input.
        tensors: names of float tensors of the graph.
        images: read once per pass.
        progress: called after each image of each pass.
        most_bytes: of extra outputs that a pass may hold.

    Raises:
        ModelError: a tensor is not finite on some image.
        InputDataError: no image can be read.
    """
    histograms = {name: Histogram(name) for name in tensors}
    groups = split_by_bytes({name: tensor_bytes(view, name) for name in tensors}, most_bytes)
    total, done = len(images) * len(groups), 0
    for group in groups:
        inner = [name for name in group if name not in view.inputs]
        backend = _backend_for(view, inner) if inner else None
        for tensor in images:
            for name in set(group) - set(inner):
                histograms[name].update(tensor)
            if backend is not None:
                results = backend.run({view.inputs[0]: tensor})
                for name in inner:
                    histograms[name].update(results.pop(name))
            done += 1
            progress("Calibrating", done, max(total, done))
    return histograms


def _backend_for(view: GraphView, names: Sequence[str]) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(with_outputs(view.model, names).SerializeToString())


def split_by_bytes(sizes: Mapping[str, int], most_bytes: int) -> list[list[str]]:
    """Runs of names, in order, each of at most ``most_bytes`` or of one name."""
    groups: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if not groups or filled + size > most_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def tensor_bytes(view: GraphView, name: str) -> int:
    """Bytes of a float32 tensor, symbolic sizes taken as 1."""
    shape = view.static_shape(name)
    return 4 * math.prod(shape) if shape is not None else 0


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
