"""Measures the mean error that int8 gives each output channel of each layer.

Beside every int8 layer of the float32 graph runs its quantized copy on the same input, quantized.
The mean of the difference over images and positions is what to subtract from the bias. One
session, one pass, and only one number per channel leaves it.

Bias correction: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2; here with measured instead of modelled inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from trtconvert.calibration.collect import float_output, session_for
from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import FreshNames, GraphView
from trtconvert.passes.placement import Placement
from trtconvert.passes.quantize_weights import (
    dequantized_weight,
    scale_for,
)
from trtconvert.progress import Progress


def measure_bias_errors(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    images: ImageReader,
    progress: Progress,
) -> dict[int, NDArray[np.float32]]:
    """Mean error per output channel, by node index.

    Args:
        view: of the float32 graph (opset 18 or newer).
        placement: which nodes become int8.
        thresholds: absolute value that maps to 127, by activation name.
        images: read once.
        progress: called after each image.
    """
    model, outputs = _difference_graph(view, placement, thresholds)
    session = session_for(model)
    sums: dict[int, NDArray[np.float64]] = {}
    runs = 0
    for tensor in images:
        results = session.run(list(outputs.values()), {view.inputs[0]: tensor})
        for index, mean in zip(outputs, results, strict=True):
            sums[index] = sums.get(index, 0.0) + mean.astype(np.float64)
        runs += 1
        progress("Correcting biases", runs, max(len(images), runs))
    return {index: (total / runs).astype(np.float32) for index, total in sums.items()}


def _difference_graph(
    view: GraphView, placement: Placement, thresholds: Mapping[str, float]
) -> tuple[ModelProto, dict[int, str]]:
    out = ModelProto()
    out.CopyFrom(view.model)
    graph = out.graph
    names = FreshNames(out)
    nodes = list(graph.node)

    def constant(wanted: str, value: NDArray[np.generic]) -> str:
        name = names(wanted)
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(op_type: str, inputs: list[str], **attributes: Any) -> str:
        result = names(f"{op_type}_difference")
        graph.node.append(helper.make_node(op_type, inputs, [result], **attributes))
        return result

    rounded: dict[str, str] = {}
    for name in placement.activations:
        scale = constant(f"{name}_scale", scale_for(thresholds[name]))
        zero = constant(f"{name}_zero", np.array(0, np.int8))
        integer = add("QuantizeLinear", [name, scale, zero])
        rounded[name] = add("DequantizeLinear", [integer, scale, zero])
    outputs: dict[int, str] = {}
    for quantized in placement.nodes:
        node = nodes[quantized.index]
        if node.op_type == "MatMul":
            continue
        weight = view.array(quantized.weight).astype(np.float32)
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.name = names(f"{node.name}_quantized")
        copy.input[0] = rounded[quantized.activation]
        copy.input[1] = constant(
            f"{quantized.weight}_rounded", dequantized_weight(weight, quantized.axis)
        )
        copy.output[0] = names(f"{node.output[0]}_quantized")
        error = add("Sub", [copy.output[0], node.output[0]])
        rank = weight.ndim
        axes = constant("axes", np.array([a for a in range(rank) if a != 1], np.int64))
        outputs[quantized.index] = add("ReduceMean", [error, axes], keepdims=0)
    del graph.output[:]
    graph.output.extend(float_output(name) for name in outputs.values())
    return out, outputs
