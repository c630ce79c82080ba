"""Measures what int8 does to each layer by itself.

Beside every int8 layer of the float32 graph runs its quantized copy on the same input, quantized.
Of the difference, two things are kept per layer: its mean per output channel, which is what to
subtract from the bias, and its power against that of the output, the layer's signal-to-noise
ratio. One session, one pass, and a few numbers per channel leave it.

Bias correction: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019, section 4.2; here with measured instead of modelled inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from trtconvert.calibration.reader import ImageReader
from trtconvert.graph_view import FreshNames, GraphView, replace_nodes
from trtconvert.passes.placement import Placement, QuantizedNode
from trtconvert.passes.quantize_weights import rounded_constant, scale_for
from trtconvert.progress import Progress


@dataclass(frozen=True)
class LayerError:
    """What int8 does to a layer's output on the calibration images.

    Attributes:
        channel_mean: float32 ``[channels]``, mean of the quantized output minus the float one.
        snr_db: power of the output over power of the difference, its mean apart (bias correction
            removes that), in decibels; infinite where they are equal.
    """

    channel_mean: NDArray[np.float32]
    snr_db: float


def measure_layer_errors(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    images: ImageReader,
    progress: Progress,
) -> dict[int, LayerError]:
    """Errors by node index.

    Args:
        view: of the float32 graph (opset 18 or newer).
        placement: which nodes become int8.
        thresholds: absolute value that maps to 127, by activation name.
        images: read once.
        progress: called after each image.
    """
    graph = _DifferenceGraph(view, placement, thresholds)
    outputs = graph.outputs
    backend = view.running(graph.model, in_order=True)
    sums = [np.zeros(())] * len(outputs)
    runs = 0
    for tensor in images:
        results = backend.run({view.inputs[0]: tensor})
        sums = [
            total + results[name].astype(np.float64)
            for total, name in zip(sums, outputs, strict=True)
        ]
        runs += 1
        progress("Measuring layers", runs, max(len(images), runs))
    means = [total / runs for total in sums]
    return {
        quantized.index: _layer_error(*means[4 * i : 4 * i + 4])
        for i, quantized in enumerate(placement.nodes)
    }


def _layer_error(
    mean: NDArray[np.float64],
    error_squares: NDArray[np.float64],
    squares: NDArray[np.float64],
    size: NDArray[np.float64],
) -> LayerError:
    noise = float(error_squares) - float(size * np.square(mean).mean())
    signal = float(squares)
    snr_db = 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf
    return LayerError(mean.astype(np.float32), snr_db)


class _DifferenceGraph:
    """The float32 graph with a quantized copy behind each layer; four outputs per layer.

    The copies stand right behind their layers, so that few tensors live at a time.
    """

    def __init__(
        self, view: GraphView, placement: Placement, thresholds: Mapping[str, float]
    ) -> None:
        self.view = view
        self.model = ModelProto()
        self.model.CopyFrom(view.model)
        self.outputs: list[str] = []
        self._nodes: list[NodeProto] = []
        self._names = FreshNames(self.model)
        self._rounded: dict[str, str] = {}
        del self.model.graph.output[:]
        layers = {quantized.index: quantized for quantized in placement.nodes}
        for index, node in enumerate(view.model.graph.node):
            self._nodes.append(node)
            if index in layers:
                self._add_layer(node, layers[index], thresholds[layers[index].activation])
        replace_nodes(self.model.graph, self._nodes)

    def _add_layer(self, source: NodeProto, quantized: QuantizedNode, threshold: float) -> None:
        """Add outputs: mean error per channel; sums of the error's and the output's squares; size.

        Over all axes, ONNX Runtime sums squares while it reads, and stores none. Its float32 sum
        is some 1e-4 off, which is less than 0.001 dB.
        """
        label = self._names("weight_of_difference")
        weight = rounded_constant(self.view, quantized.weight, quantized.axis, label)
        self.model.graph.initializer.append(weight)
        copy = NodeProto()
        copy.CopyFrom(source)
        copy.name = self._names(f"{source.name}_quantized")
        copy.input[0] = self._rounded_activation(quantized.activation, threshold)
        copy.input[1] = label
        copy.output[0] = self._names(f"{source.output[0]}_quantized")
        self._nodes.append(copy)
        error = self._add("Sub", [copy.output[0], source.output[0]])
        # Channels are axis 1 of a Conv or Gemm and the last axis of a MatMul of any rank.
        rank = len(self.view.shape.get(source.output[0]) or weight.dims)
        channels = rank - 1 if source.op_type == "MatMul" else 1
        axes = self._constant(np.array([a for a in range(rank) if a != channels], np.int64))
        self._output(self._add("ReduceMean", [error, axes], keepdims=0))
        for values in (error, source.output[0]):
            self._output(self._add("ReduceSumSquare", [values], keepdims=0))
        self._output(self._add("Size", [error]), TensorProto.INT64)

    def _rounded_activation(self, name: str, threshold: float) -> str:
        if name not in self._rounded:
            pair = [self._constant(scale_for(threshold)), self._constant(np.array(0, np.int8))]
            integer = self._add("QuantizeLinear", [name, *pair])
            self._rounded[name] = self._add("DequantizeLinear", [integer, *pair])
        return self._rounded[name]

    def _output(self, name: str, elem_type: int = TensorProto.FLOAT) -> None:
        self.outputs.append(name)
        self.model.graph.output.append(helper.make_tensor_value_info(name, elem_type, None))

    def _constant(self, value: NDArray[Any]) -> str:
        name = self._names("constant_of_difference")
        self.model.graph.initializer.append(self.view.constant(value, name))
        return name

    def _add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        result = self._names(f"{op_type}_of_difference")
        self._nodes.append(helper.make_node(op_type, inputs, [result], **attributes))
        return result
