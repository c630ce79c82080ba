"""Finds the largest absolute value of every float tensor, to keep float16 from overflowing."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, TensorProto

from trtconvert.calibration.collect import add_behind, float_output
from trtconvert.calibration.magnitude import peak_nodes
from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import FreshNames, GraphView
from trtconvert.progress import Progress


def measure_peaks(view: GraphView, images: ImageReader, progress: Progress) -> dict[str, float]:
    """Largest absolute value over all images by tensor name.

    The maxima are taken inside the session, so that one number per tensor leaves it.

    Args:
        view: of the float32 graph (opset 18 or newer).
        images: read once.
        progress: called after each image.
    """
    tensors = [
        name
        for node in view.model.graph.node
        for name in node.output
        if view.elem_type.get(name) == TensorProto.FLOAT and view.shape.get(name) != ()
    ]
    model, outputs = _with_peaks(view, tensors)
    backend = view.running(model, in_order=True)
    peaks = dict.fromkeys(tensors, 0.0)
    for done, tensor in enumerate(images, 1):
        results = backend.run({view.inputs[0]: tensor})
        for name, output in zip(tensors, outputs, strict=True):
            peaks[name] = max(peaks[name], float(results[output]))
        progress("Measuring ranges", done, max(len(images), done))
    return peaks


def _with_peaks(view: GraphView, tensors: list[str]) -> tuple[ModelProto, list[str]]:
    out = ModelProto()
    out.CopyFrom(view.model)
    names = FreshNames(out)
    outputs: dict[str, str] = {}
    wanted = set(tensors)

    def reduced(name: str) -> list[NodeProto]:
        if name not in wanted:
            return []
        nodes, outputs[name] = peak_nodes(view, name, names)
        return nodes

    add_behind(out.graph, view.inputs, reduced)
    del out.graph.output[:]
    out.graph.output.extend(float_output(outputs[name]) for name in tensors)
    return out, [outputs[name] for name in tensors]
