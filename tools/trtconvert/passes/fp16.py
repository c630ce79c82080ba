"""Converts a float32 graph to a strongly typed float16 one.

Which nodes change is decided by :mod:`trtconvert.passes.fp16_rules`. The rewrite:

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

import numpy as np
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
from trtconvert.passes.fp16_rules import FLOAT, FLOAT16, decide_fp16, float32_places
from visionrt.errors import ModelError

_SUFFIX: dict[int, str] = {FLOAT: "fp32", FLOAT16: "fp16"}


def convert_to_fp16(
    model: ModelProto,
    observed: Mapping[str, float] | None = None,
    keep: Mapping[str, str] | None = None,
) -> tuple[ModelProto, list[Decision]]:
    """The float16 form of ``model`` and a decision for each of its nodes.

    Args:
        model: a flat float32 graph; it is not changed.
        observed: largest absolute value seen by tensor name, from calibration images; tensors
            near float16's limit stay float32.
        keep: reasons by name of nodes that stay float32.

    Raises:
        ModelError: control flow, or types that do not fit together.
    """
    view = GraphView(lift_constants(model))
    decisions = decide_fp16(view, observed or {}, keep)
    out = _Rewrite(view, decisions).run()
    try:
        onnx.checker.check_model(out, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            "a graph that is valid in float16",
            got=one_line(error),
            fix="Use --precision fp32, and report the model.",
        ) from error
    return out, decisions


class _Rewrite:
    def __init__(self, view: GraphView, decisions: list[Decision]) -> None:
        self.view = view
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
            self._convert(node, FLOAT16 if decision.precision == "fp16" else FLOAT)
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
        wants = {i: precision if admits else FLOAT for i, _, admits in float32_places(view, node)}
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
            kind = preferred if kind == FLOAT and preferred == FLOAT16 else kind
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
            cast = self.names(f"{present}_{_SUFFIX[kind]}")
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
                with np.errstate(over="ignore"):
                    value = numpy_helper.to_array(source).astype(np.float16)
                self.constants[key] = numpy_helper.from_array(value, self.names(f"{name}_fp16"))
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
                inner = self.names(f"{name}_{_SUFFIX[kind]}")
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
