"""Which scales make the first convolution's output impossibly large or small.

A trained network has normalised its layers, and folding the normalisation into the weights leaves
outputs of a size around 1 at the first convolution. Pixels that were not divided by 255 make them
some hundred times larger, and pixels that were divided without need, smaller. The bounds are wide:
within them nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

# Of the standard deviation of the channel that varies most. Seen in trained models fed rightly:
# 0.2 to 21; with pixels 255 times too large: 27 to 1200; 255 times too small: 0.004.
LEAST, MOST = 0.02, 100.0


def plausible_scales(
    model: ModelProto,
    specs: Mapping[str, PreprocessSpec],
    images: Sequence[NDArray[np.uint8]],
) -> list[str]:
    """The keys of ``specs`` under which the first convolution answers in a usual size.

    All of them where the graph has no convolution, or where none would be left. Runs the model up
    to there once per image and spec.
    """
    cut = _up_to_first_conv(model)
    if cut is None:
        return list(specs)
    backend = OnnxRuntimeBackend(cut.SerializeToString())
    kept = []
    try:
        info = backend.inputs[0]
        batch = info.shape[0] if isinstance(info.shape[0], int) else 1
        for key, spec in specs.items():
            preprocess = Preprocessor(spec)
            feeds = (np.repeat(preprocess([pixels]), batch, axis=0) for pixels in images)
            outputs = [next(iter(backend.run({info.name: feed}).values()))[:1] for feed in feeds]
            spread = np.concatenate(outputs).astype(np.float64).std(axis=(0, 2, 3)).max()
            if LEAST <= spread <= MOST:
                kept.append(key)
    finally:
        backend.close()
    return kept or list(specs)


def _up_to_first_conv(model: ModelProto) -> ModelProto | None:
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    first = next((node for node in graph.node if node.op_type == "Conv"), None)
    if first is None:
        return None
    needed, nodes = set(first.input), [first]
    for node in reversed(graph.node):
        if needed & set(node.output) and node is not first:
            nodes.append(node)
            needed |= set(node.input)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.output[:]
    elem_type = graph.input[0].type.tensor_type.elem_type
    wide = TensorProto.FLOAT if elem_type == TensorProto.UINT8 else elem_type
    graph.output.append(helper.make_tensor_value_info(first.output[0], wide, None))
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    del graph.value_info[:]
    return copy
