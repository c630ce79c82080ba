"""Brings a model to one form of ONNX, so that later passes meet only that.

1. Functions defined inside the model are inlined.
2. A core operator set below 17 is converted to 17 (LayerNormalization and the last changes of the
   operators that vision models use); a newer one stays.
3. ``ai.onnx`` and an empty domain mean the same: the empty one is written.
4. The IR version is at least 8, the one of operator set 17.
"""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx.version_converter
from onnx import ModelProto

from trtconvert.graph import all_nodes, one_line, opset_of
from visionrt.errors import ModelError

OPSET = 17
IR_VERSION = 8


def upgrade(model: ModelProto) -> ModelProto:
    """The model in the form above; the argument may be changed.

    Raises:
        ModelError: ONNX has no conversion for one of the operators.
    """
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    for entry in model.opset_import:
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    for node in all_nodes(model.graph):
        node.domain = "" if node.domain == "ai.onnx" else node.domain
    opset = opset_of(model)
    if opset < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except (onnx.version_converter.ConvertError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"a model that converts from ONNX operator set {opset} to {OPSET}",
                got=one_line(error),
                fix=f"Export the model again with operator set {OPSET} or newer.",
            ) from error
    model.ir_version = max(model.ir_version, IR_VERSION)
    return model
