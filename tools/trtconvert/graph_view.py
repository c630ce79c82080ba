"""A read-only index of an ONNX graph: types, shapes, producers and consumers by tensor name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from trtconvert.graph import node_label, opset_of
from trtconvert.heap import trim
from trtconvert.passes.dims import infer_shapes
from trtconvert.weights import WeightFile
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import ModelError


class GraphView:
    """Index of ``model``, which must not change while the view is in use.

    Attributes:
        model: a copy of the model with inferred ``value_info``.
        elem_type: ONNX element type by tensor name; initializers and inputs included.
        shape: sizes by tensor name; a str is symbolic, None unknown.
        initializers: constant tensors by name.
        producer: the node that writes a tensor.
        consumers: the nodes that read a tensor, in graph order.

    Args:
        flat: whether to refuse nodes with a graph of their own. What those read is not indexed.
        weights: the file that ``model`` keeps its large constants in, where it does.

    Raises:
        ModelError: shapes or types do not fit together, or a node has a subgraph or is a call
            of a local function.
    """

    def __init__(
        self, model: ModelProto, *, flat: bool = True, weights: WeightFile | None = None
    ) -> None:
        if flat:
            refuse_subgraphs(model)
        self.weights = weights
        self.model = infer_shapes(model)
        graph = self.model.graph
        self.initializers: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self.inputs = tuple(v.name for v in graph.input if v.name not in self.initializers)
        self.outputs = tuple(v.name for v in graph.output)
        self.elem_type: dict[str, int] = {}
        self.shape: dict[str, tuple[int | str | None, ...] | None] = {}
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            self.elem_type[value.name] = tensor.elem_type
            self.shape[value.name] = (
                tuple(_size(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
            )
        for constant in graph.initializer:
            self.elem_type[constant.name] = constant.data_type
            self.shape[constant.name] = tuple(constant.dims)
        self.producer: dict[str, NodeProto] = {}
        self.consumers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.output:
                self.producer[name] = node
            for name in dict.fromkeys(filter(None, node.input)):
                self.consumers[name].append(node)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return opset_of(self.model)

    def array(self, name: str) -> NDArray[np.generic]:
        """Value of an initializer; not to be written to."""
        constant = self.initializers[name]
        return (
            numpy_helper.to_array(constant)
            if self.weights is None
            else self.weights.array(constant)
        )

    def constant(self, value: NDArray[Any], name: str) -> TensorProto:
        """A constant for a graph made of this one; a large one where this one's are."""
        if self.weights is None:
            return numpy_helper.from_array(value, name)
        return self.weights.constant(value, name)

    def running(self, model: ModelProto, **settings: Any) -> OnnxRuntimeBackend:
        """A session of a graph made of this one; ``settings`` are those of the backend."""
        folder = None if self.weights is None else self.weights.folder
        trim()
        backend = OnnxRuntimeBackend(model.SerializeToString(), weights_folder=folder, **settings)
        trim()
        return backend

    def static_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape with symbolic and unknown sizes taken as 1, or None where the rank is unknown."""
        shape = self.shape.get(name)
        if shape is None:
            return None
        return tuple(d if isinstance(d, int) else 1 for d in shape)


class FreshNames:
    """Gives names that no tensor or node of a model has."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._taken = {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
        for node in graph.node:
            self._taken.update(node.output)
            self._taken.add(node.name)

    def __call__(self, wanted: str) -> str:
        """``wanted``, or ``wanted`` with a number, and reserves it."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def node_name(node: NodeProto) -> str:
    """Name of a node, or of its first output where it has none."""
    return node.name or next(filter(None, node.output), node.op_type)


def attribute(node: NodeProto, name: str, default: object) -> object:
    """Value of an attribute, or ``default`` where it is absent."""
    for item in node.attribute:
        if item.name == name:
            value: object = onnx.helper.get_attribute_value(item)
            return value
    return default


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Set the node list of ``graph``; stale ``value_info`` goes with the old one."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]


def drop_unused_initializers(graph: GraphProto) -> None:
    """Remove constants that no node reads and that are no output."""
    used = {name for node in graph.node for name in node.input} | {v.name for v in graph.output}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def lift_constants(model: ModelProto) -> ModelProto:
    """The model with every tensor-valued ``Constant`` node as an initializer; a copy if any is."""
    if not any(_constant_value(node) is not None for node in model.graph.node):
        return model
    out = ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    nodes = []
    for node in graph.node:
        value = _constant_value(node)
        if value is None:
            nodes.append(node)
            continue
        constant = graph.initializer.add()
        constant.CopyFrom(value)
        constant.name = node.output[0]
    replace_nodes(graph, nodes)
    return out


def _constant_value(node: NodeProto) -> TensorProto | None:
    value = attribute(node, "value", None) if node.op_type == "Constant" else None
    return value if isinstance(value, TensorProto) else None


def refuse_subgraphs(model: ModelProto) -> None:
    """Raise ModelError, naming the node, for If, Loop, Scan and calls of local functions."""
    functions = {(f.domain, f.name) for f in model.functions}
    for node in model.graph.node:
        nested = any(
            a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute
        )
        if nested or (node.domain, node.op_type) in functions:
            raise ModelError(
                "a flat graph",
                got=f"{node_label(node)}, which holds a graph of its own",
                fix="Fix the shapes so that folding removes it, or export without control flow.",
            )


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) if dim.dim_param else None
