"""Reading ONNX graphs: walking nodes, naming them in messages, describing tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from visionrt.errors import ModelError
from visionrt.manifest import TensorInfo

CORE_DOMAINS = ("", "ai.onnx")


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The bodies of a control flow node (If, Loop, Scan); most nodes have none."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Every node of a graph and of the bodies inside it."""
    for node in graph.node:
        yield node
        for body in subgraphs(node):
            yield from all_nodes(body)


def all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every stored tensor: initializers and tensor attributes, bodies included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == AttributeProto.TENSORS:
                yield from attribute.tensors
        for body in subgraphs(node):
            yield from all_tensors(body)


def names_read(node: NodeProto) -> Iterator[str]:
    """Names of the values a node reads, what its bodies read from outside included."""
    yield from (name for name in node.input if name)
    for body in subgraphs(node):
        own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
        for inner in body.node:
            yield from (name for name in names_read(inner) if name not in own)
            own.update(inner.output)
        yield from (value.name for value in body.output if value.name not in own)


def node_label(node: NodeProto) -> str:
    """How messages call a node: ``Conv 'stem/conv'``."""
    name = node.name or (node.output[0] if node.output else "")
    domain = f"{node.domain}." if node.domain not in CORE_DOMAINS else ""
    return f"{domain}{node.op_type} {name!r}"


def opset_of(model: ModelProto) -> int:
    """Version of the core operator set.

    Raises:
        ModelError: the model names none.
    """
    for entry in model.opset_import:
        if entry.domain in CORE_DOMAINS:
            return int(entry.version)
    raise ModelError(
        "a model that says which ONNX operator set it uses",
        got="none",
        fix="The file is incomplete: export or download it again.",
    )


def image_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """Inputs the caller must feed. Before IR version 4, initializers were listed as inputs too."""
    stored = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in stored]


def dtype_of(value: ValueInfoProto) -> str:
    """NumPy dtype name of a tensor value."""
    return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)))


def shape_of(value: ValueInfoProto) -> tuple[int | str, ...]:
    """Shape of a tensor value; a str is a symbolic size, ``?`` one without a name."""
    return tuple(
        int(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in value.type.tensor_type.shape.dim
    )


def tensor_info(value: ValueInfoProto) -> TensorInfo:
    """Name, dtype and shape of a graph input or output."""
    return TensorInfo(value.name, dtype_of(value), shape_of(value))


def one_line(error: BaseException, limit: int = 300) -> str:
    """A library's message without its line breaks and context dumps, for our own messages."""
    text = str(error).split("==> Context")[0]
    text = " ".join(text.split()).rstrip(". ")
    text = text or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
