"""Simplifies the graph with onnxslim, and takes the result only where it can be trusted.

1. Constant subgraphs are folded, and Conv + BatchNormalization and the like are merged.
2. A failure of the library, or a result whose inputs or outputs differ in name, type or number of
   dimensions, leaves the graph as it was.
3. A graph with a loop is left as it is: the library was seen to fold a loop over all detections
   into one round.
"""

from __future__ import annotations

import logging

import onnxslim
from onnx import ModelProto, ValueInfoProto

from trtconvert.graph import all_nodes, one_line
from trtconvert.heap import reclaim
from trtconvert.load import check_graph


def slim(model: ModelProto, warnings: list[str]) -> ModelProto:
    """A simpler model with the same results; a copy of ``model``, or ``model`` on failure."""
    if any(node.op_type in ("Loop", "Scan") for node in all_nodes(model.graph)):
        return model
    slimmer: ModelProto = ModelProto()
    slimmer.CopyFrom(model)
    level = logging.getLogger("onnxslim").level
    logging.getLogger("onnxslim").setLevel(logging.CRITICAL)
    try:
        slimmer = onnxslim.slim(slimmer)
        check_graph(slimmer)
    except Exception as error:  # noqa: BLE001 - the library raises what its passes happen to raise
        warnings.append(f"the graph was not simplified: {one_line(error)}")
        return model
    finally:
        logging.getLogger("onnxslim").setLevel(level)
        # The library's graphs hold all weights in circles of references.
        reclaim()
    if _interface(slimmer) != _interface(model):
        warnings.append("the graph was not simplified: it would have changed inputs or outputs")
        return model
    return slimmer


def _interface(model: ModelProto) -> list[tuple[str, int]]:
    def described(value: ValueInfoProto) -> tuple[str, int]:
        return (value.name, value.type.tensor_type.elem_type)

    inputs = sorted(described(value) for value in model.graph.input)
    return inputs + [described(value) for value in model.graph.output]
