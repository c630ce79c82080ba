"""One graph out of two: the float32 one, its typed form beside it, and figures of their difference.

Rules:

1. A tensor is compared where the typed form has a float32 tensor of the same name, which passes
   keep for a tensor that means the same. Every other float tensor is in ``unmapped``, with why.
2. Of each compared tensor six numbers leave the graph (``FIGURES``), computed in float64. No tensor
   does, so one run needs memory for what is alive at a time in both graphs and no more.
3. The nodes of both graphs are interleaved: a tensor's two forms and its figures stand beside each
   other. The graph must run in that order (``in_order``): ONNX Runtime's own keeps every tensor.
4. Constants that are equal in both are stored once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtconvert.graph_view import FreshNames, GraphView, replace_nodes

# Sums of squares of the float32 tensor and of the error, sum of their product, the largest error,
# and the range of the float32 tensor.
FIGURES = ("power", "error_power", "product", "max_error", "low", "high")


@dataclass(frozen=True)
class PairedGraph:
    """See the module.

    Attributes:
        model: its inputs are those of the graphs, its outputs the figures, float64 scalars.
        figures: names of the outputs, in the order of ``FIGURES``, by tensor.
        unmapped: why a float tensor is not compared, by tensor.
    """

    model: ModelProto
    figures: Mapping[str, Sequence[str]]
    unmapped: Mapping[str, str]


def pair_graphs(reference: GraphView, measured: GraphView) -> PairedGraph:
    """Put a float32 graph and the measured form of its typed graph together.

    Args:
        reference: of the float32 graph.
        measured: of the same operator set and inputs; see
            :attr:`trtconvert.precision.TypedGraph.measured`.
    """
    return _Pairing(reference, measured).run()


class _Pairing:
    def __init__(self, reference: GraphView, measured: GraphView) -> None:
        self._reference = reference
        self._measured = measured
        self._names = FreshNames(reference.model)
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._renamed: dict[str, str] = {}
        self._pending = iter(measured.model.graph.node)
        self._placed: set[str] = set()
        self._flat = self._constant("flat", np.array([-1], np.int64))

    def run(self) -> PairedGraph:
        self._rename_constants()
        figures: dict[str, list[str]] = {}
        unmapped: dict[str, str] = {}
        for node in self._reference.model.graph.node:
            self._nodes.append(node)
            for name in node.output:
                if self._reference.elem_type.get(name) != TensorProto.FLOAT:
                    continue
                reason = self._why_not(name)
                if reason:
                    unmapped[name] = reason
                    continue
                self._place_measured(name)
                figures[name] = self._compare(name, self._renamed[name])
        out = ModelProto()
        out.CopyFrom(self._reference.model)
        replace_nodes(out.graph, self._nodes)
        out.graph.initializer.extend(self._constants)
        del out.graph.output[:]
        for names in figures.values():
            out.graph.output.extend(
                helper.make_tensor_value_info(name, TensorProto.DOUBLE, []) for name in names
            )
        return PairedGraph(out, figures, unmapped)

    def _why_not(self, name: str) -> str:
        """Why a tensor cannot be compared; empty where it can (rule 1)."""
        measured = self._measured
        if name in measured.initializers:
            return "a constant in the typed graph"
        if name not in measured.producer:
            return "no tensor of that name in the typed graph"
        if measured.elem_type.get(name) != TensorProto.FLOAT:
            kind = TensorProto.DataType.Name(measured.elem_type.get(name, 0)).lower()
            return f"{kind} in the typed graph"
        shape = self._reference.static_shape(name)
        return "an empty tensor" if shape is not None and 0 in shape else ""

    def _place_measured(self, name: str) -> None:
        """Append nodes of the measured graph, in its order, up to the one that makes ``name``."""
        while name not in self._placed:
            source = next(self._pending)
            node = NodeProto()
            node.CopyFrom(source)
            node.name = self._names(f"{source.name}_measured")
            for index, read in enumerate(source.input):
                node.input[index] = self._renamed.get(read, read)
            for index, made in enumerate(source.output):
                if made:
                    self._renamed[made] = self._names(f"{made}_measured")
                    node.output[index] = self._renamed[made]
            self._nodes.append(node)
            self._placed.update(source.output)

    def _rename_constants(self) -> None:
        for name, tensor in self._measured.initializers.items():
            same = self._reference.initializers.get(name)
            if same is not None and same == tensor:
                continue
            copy = TensorProto()
            copy.CopyFrom(tensor)
            copy.name = self._renamed[name] = self._names(f"{name}_measured")
            self._constants.append(copy)

    def _compare(self, reference: str, measured: str) -> list[str]:
        signal, other = self._widened(reference), self._widened(measured)
        error = self._add("Sub", other, signal)
        return [
            self._add("ReduceSumSquare", signal, keepdims=0),
            self._add("ReduceSumSquare", error, keepdims=0),
            self._add("ReduceSum", self._add("Mul", signal, error), keepdims=0),
            self._add("ReduceMax", self._add("Abs", error), keepdims=0),
            self._add("ReduceMin", signal, keepdims=0),
            self._add("ReduceMax", signal, keepdims=0),
        ]

    def _widened(self, name: str) -> str:
        """The tensor as float64 [n]: reductions of scalars differ between operator sets."""
        return self._add("Reshape", self._add("Cast", name, to=TensorProto.DOUBLE), self._flat)

    def _constant(self, wanted: str, value: np.ndarray) -> str:
        name = self._names(wanted)
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def _add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        result = self._names(f"{op_type}_of_comparison")
        self._nodes.append(
            helper.make_node(op_type, list(inputs), [result], name=result, **attributes)
        )
        return result
