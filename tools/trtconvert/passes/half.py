"""Converts a float32 graph to a strongly typed float16 or bfloat16 one.

Which nodes change is decided by :mod:`trtconvert.passes.half_rules`. The rewrite:

1. Inputs and outputs of the graph keep their names and types; Casts stand at the edges.
2. A tensor has the type its producer gives it; a reader that wants the other type reads a Cast.
   There is one Cast per tensor and type, placed before its first reader, so the order of nodes
   stays topological.
3. Constants are stored in the type their readers want; one read in both types is stored twice.
4. Casts of the source graph that have become the identity are dropped.
5. Q/DQ pairs take float16 scales where their float side is float16 (opset 19).
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from trtconvert.decision import Decision
from trtconvert.graph import one_line
from trtconvert.graph_view import (
    FreshNames,
    GraphView,
    drop_unused_initializers,
    lift_constants,
    replace_nodes,
)
from trtconvert.passes.dims import infer_shapes
from trtconvert.passes.half_rules import FLOAT, decide_half, float32_places
from trtconvert.passes.half_types import FP16, HalfType, rounded_tensor
from visionrt.errors import ModelError


def convert_to_half(
    model: ModelProto,
    observed: Mapping[str, float] | None = None,
    keep: Mapping[str, str] | None = None,
    half: HalfType = FP16,
) -> tuple[ModelProto, list[Decision]]:
    """The 16-bit form of ``model`` and a decision for each of its nodes.

    Args:
        model: a flat float32 graph; it is not changed.
        observed: largest absolute value seen by tensor name, from calibration images; tensors
            near the type's limit stay float32.
        keep: reasons by name of nodes that stay float32.
        half: the type to convert to. Convolutions take bfloat16 from opset 22 on.

    Raises:
        ModelError: control flow, or types that do not fit together.
    """
    view = GraphView(lift_constants(model))
    decisions = decide_half(view, observed or {}, keep, half)
    out = _Rewrite(view, decisions, half).run()
    try:
        onnx.checker.check_model(out, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"a graph that is valid in {half.long_name}",
            got=one_line(error),
            fix="Use --precision fp32, and report the model.",
        ) from error
    return out, decisions


class _Rewrite:
    def __init__(self, view: GraphView, decisions: list[Decision], half: HalfType) -> None:
        self.view = view
        self.half = half
        self.suffix: dict[int, str] = {FLOAT: "fp32", half.onnx_type: half.name}
        self.decisions = decisions
        self.names = FreshNames(view.model)
        self.nodes: list[NodeProto] = []
        self.constants: dict[tuple[str, int], TensorProto] = {}
        # Present name and type of each tensor of the source graph.
        self.current: dict[str, tuple[str, int]] = {}
        self.casts: dict[tuple[str, int], str] = {}

    def run(self) -> ModelProto:
        view = self.view
        for name in view.inputs:
            self.current[name] = (name, view.elem_type[name])
        for node, decision in zip(view.model.graph.node, self.decisions, strict=True):
            self._convert(
                node, self.half.onnx_type if decision.precision == self.half.name else FLOAT
            )
        self._restore_outputs()
        out = ModelProto()
        out.CopyFrom(view.model)
        replace_nodes(out.graph, self.nodes)
        del out.graph.initializer[:]
        out.graph.initializer.extend(self.constants.values())
        # An initializer may be listed as an input as well; its type there would be stale.
        kept = [v for v in out.graph.input if v.name in view.inputs]
        del out.graph.input[:]
        out.graph.input.extend(kept)
        drop_unused_initializers(out.graph)
        return infer_shapes(out)

    def _convert(self, node: NodeProto, precision: int) -> None:
        view = self.view
        if node.op_type == "Cast":
            self._convert_cast(node, precision)
            return
        new = NodeProto()
        new.CopyFrom(node)
        wants = {
            i: precision if admits else FLOAT
            for i, _, admits in float32_places(view, node, self.half)
        }
        if node.op_type == "Resize":
            # The region of interest is a position, whatever the image's type.
            wants = {i: t if i == 0 else FLOAT for i, t in wants.items()}
        for index, name in enumerate(node.input):
            if name:
                new.input[index] = self._read(name, wants.get(index, view.elem_type.get(name, 0)))
        for name in node.output:
            is_float = view.elem_type.get(name) == FLOAT
            self.current[name] = (name, precision if is_float else view.elem_type.get(name, 0))
        self.nodes.append(new)

    def _convert_cast(self, node: NodeProto, precision: int) -> None:
        source, result = node.input[0], node.output[0]
        to = precision if self.view.elem_type[result] == FLOAT else self.view.elem_type[result]
        name, kind = self._present(source, preferred=to)
        if kind == to and result not in self.view.outputs:
            self.current[result] = (name, kind)
            return
        self.nodes.append(helper.make_node("Cast", [name], [result], name=node.name, to=to))
        self.current[result] = (result, to)

    def _present(self, name: str, preferred: int) -> tuple[str, int]:
        """Name and type of a tensor as it stands; a constant takes the preferred float type."""
        if name in self.view.initializers:
            kind = self.view.elem_type[name]
            kind = preferred if kind == FLOAT and preferred == self.half.onnx_type else kind
            return self._constant(name, kind), kind
        return self.current[name]

    def _read(self, name: str, kind: int) -> str:
        """Name under which a tensor can be read as ``kind``, with a Cast where it must be."""
        if name in self.view.initializers:
            return self._constant(name, kind)
        present, present_kind = self.current[name]
        if present_kind == kind:
            return present
        key = (present, kind)
        if key not in self.casts:
            cast = self.names(f"{present}_{self.suffix[kind]}")
            self.nodes.append(
                helper.make_node(
                    "Cast", [present], [cast], name=self.names(f"{cast}_cast"), to=kind
                )
            )
            self.casts[key] = cast
        return self.casts[key]

    def _constant(self, name: str, kind: int) -> str:
        key = (name, kind)
        if key not in self.constants:
            source = self.view.initializers[name]
            if kind == source.data_type:
                self.constants[key] = source
            else:
                label = self.names(f"{name}_{self.half.name}")
                value = numpy_helper.to_array(source)
                self.constants[key] = rounded_tensor(value, self.half, label)
        return self.constants[key].name

    def _restore_outputs(self) -> None:
        """Give the graph's outputs their own names and types back (rule 1)."""
        for name in self.view.outputs:
            if name in self.view.initializers:
                self._constant(name, self.view.elem_type[name])
                continue
            present, kind = self.current[name]
            wanted = self.view.elem_type[name]
            if kind == wanted and present == name:
                continue
            inner = present
            if present == name:
                inner = self.names(f"{name}_{self.suffix[kind]}")
                self._rename(name, inner)
            cast = self.casts.get((present, wanted))
            if cast is not None:
                self._rename(cast, name)
                continue
            label = self.names(f"{name}_cast")
            self.nodes.append(helper.make_node("Cast", [inner], [name], name=label, to=wanted))

    def _rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new
