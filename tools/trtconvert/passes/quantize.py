"""Writes Q/DQ pairs into a float32 graph, as :mod:`trtconvert.passes.placement` decided.

Rules:

1. Activations: one scale per tensor, symmetric int8, zero point 0 of type int8; one
   QuantizeLinear and one DequantizeLinear per tensor, shared by all readers.
2. Weights: stored as int8 with one scale per output channel, read through a DequantizeLinear; one
   per weight and axis.
3. Biases stay float: TensorRT-RTX refuses an int32 bias behind a DequantizeLinear.
4. Bias correction, where calibration measured a layer's mean error per output channel, is added to
   the bias; a layer without one gets one.
5. The graph is raised to opset 19, the first with float16 scales, where it is below.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from trtconvert.graph import one_line, opset_of
from trtconvert.graph_view import (
    FreshNames,
    GraphView,
    drop_unused_initializers,
    lift_constants,
    node_name,
    replace_nodes,
)
from trtconvert.passes.dims import infer_shapes
from trtconvert.passes.placement import Placement, QuantizedNode
from trtconvert.passes.quantize_weights import int8_constant, rounded_constant, scale_for
from trtconvert.weights import is_aside
from visionrt.errors import ModelError

QDQ_OPSET = 19


def insert_qdq(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    bias_errors: Mapping[int, NDArray[np.float32]] | None = None,
    *,
    stored: bool = True,
) -> ModelProto:
    """The Q/DQ form of a graph.

    Args:
        view: of the float32 graph that ``placement`` was made for.
        thresholds: absolute value that maps to 127, by activation name.
        bias_errors: by node index, what to subtract from each output channel.
        stored: whether weights are int8 behind a DequantizeLinear. Without, they are the float32
            numbers that this gives: the same results, for a session that is to measure them.

    Raises:
        ModelError: an activation without a threshold.
    """
    out = ModelProto()
    out.CopyFrom(view.model)
    writer = _Writer(out, view, thresholds, stored)
    by_index = {q.index: q for q in placement.nodes}
    residuals: dict[int, list[int]] = {}
    for index, place in placement.residuals:
        residuals.setdefault(index, []).append(place)
    for index, node in enumerate(out.graph.node):
        if (quantized := by_index.get(index)) is not None:
            writer.quantize_node(node, quantized)
            error = (bias_errors or {}).get(index)
            if error is not None:
                writer.correct_bias(node, error)
        for place in residuals.get(index, ()):
            node.input[place] = writer.activation(node.input[place])
        writer.nodes.append(node)
    replace_nodes(out.graph, writer.nodes)
    drop_unused_initializers(out.graph)
    return infer_shapes(out)


def raise_opset(model: ModelProto, version: int = QDQ_OPSET) -> ModelProto:
    """``model`` at ``version`` of the default operator set, or as it is where that is not lower.

    Raises:
        ModelError: an operator that cannot be converted.
    """
    if opset_of(model) >= version:
        return model
    bare, aside = _without_weights(model)
    try:
        out = onnx.version_converter.convert_version(bare, version)
        onnx.checker.check_model(out, full_check=True)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"a model that can be raised to opset {version}, which Q/DQ needs",
            got=one_line(error),
            fix=f"Export the model with opset {version} or newer.",
        ) from error
    if aside:
        inputs = [value for value in out.graph.input if value.name not in aside]
        del out.graph.input[:]
        out.graph.input.extend(inputs)
        out.graph.initializer.extend(aside.values())
    return lift_constants(out)


def _without_weights(model: ModelProto) -> tuple[ModelProto, dict[str, TensorProto]]:
    """The model with the constants that lie in a file as inputs, and these by name.

    The converter and the checker would look for the file.
    """
    aside = {t.name: t for t in model.graph.initializer if is_aside(t)}
    if not aside:
        return model, aside
    out = ModelProto()
    out.CopyFrom(model)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in aside]
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)
    listed = {value.name for value in out.graph.input}
    out.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in aside.values()
        if tensor.name not in listed
    )
    return out, aside


class _Writer:
    def __init__(
        self, out: ModelProto, view: GraphView, thresholds: Mapping[str, float], stored: bool
    ) -> None:
        self.graph = out.graph
        self.view = view
        self.thresholds = thresholds
        self.stored = stored
        self.names = FreshNames(out)
        self.nodes: list[NodeProto] = []
        self.pairs: dict[str, str] = {}
        self.weights: dict[tuple[str, int], str] = {}

    def quantize_node(self, node: NodeProto, quantized: QuantizedNode) -> None:
        node.input[0] = self.activation(quantized.activation)
        node.input[1] = self._weight(quantized.weight, quantized.axis)

    def activation(self, name: str) -> str:
        """Name of the tensor behind the Q/DQ pair of ``name``, which is made on first use."""
        if name not in self.pairs:
            if name not in self.thresholds:
                raise ModelError(
                    f"a calibrated range for {name!r}",
                    got="none",
                    fix="Calibrate again: the ranges belong to another graph.",
                )
            scale = self._constant(f"{name}_scale", scale_for(self.thresholds[name]))
            zero = self._constant(f"{name}_zero_point", np.array(0, np.int8))
            integer = self.names(f"{name}_int8")
            real = self.names(f"{name}_dequantized")
            self.nodes += [
                helper.make_node(
                    "QuantizeLinear",
                    [name, scale, zero],
                    [integer],
                    name=self.names(f"{name}_quantize"),
                ),
                helper.make_node(
                    "DequantizeLinear",
                    [integer, scale, zero],
                    [real],
                    name=self.names(f"{name}_dequantize"),
                ),
            ]
            self.pairs[name] = real
        return self.pairs[name]

    def _weight(self, name: str, axis: int) -> str:
        key = (name, axis)
        if key not in self.weights and not self.stored:
            label = self.names(f"{name}_dequantized")
            self.graph.initializer.append(rounded_constant(self.view, name, axis, label))
            self.weights[key] = label
        if key not in self.weights:
            integers, scales = int8_constant(self.view, name, axis)
            inputs = [
                self._constant(f"{name}_int8", integers),
                self._constant(f"{name}_scale", scales),
                self._constant(f"{name}_zero_point", np.zeros(len(scales), np.int8)),
            ]
            real = self.names(f"{name}_dequantized")
            self.nodes.append(
                helper.make_node(
                    "DequantizeLinear",
                    inputs,
                    [real],
                    name=self.names(f"{name}_dequantize"),
                    axis=axis,
                )
            )
            self.weights[key] = real
        return self.weights[key]

    def correct_bias(self, node: NodeProto, error: NDArray[np.float32]) -> None:
        if node.op_type == "MatMul":
            # It has no bias input; the Add behind it may be anything.
            return
        label = self.names(f"{node_name(node)}_corrected_bias")
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in self.view.initializers:
                return
            bias = self.view.array(node.input[2]).astype(np.float32) - error
            node.input[2] = self._constant(label, bias.astype(np.float32))
        else:
            del node.input[2:]
            node.input.append(self._constant(label, -error.astype(np.float32)))

    def _constant(self, wanted: str, value: NDArray[np.generic]) -> str:
        name = self.names(wanted)
        self.graph.initializer.append(self.view.constant(value, name))
        return name
