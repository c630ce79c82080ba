"""Engines whose answers differ in a known way."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper
from tiny_models import SIZE, tiny_classifier

from trtconvert.graph import tensor_info
from visionrt.engine_file import write_engine_file
from visionrt.manifest import Manifest
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

NAMES = ("cat", "dog", "bus, coach", "cup")
SPEC = PreprocessSpec(resize="stretch", size=(SIZE, SIZE))
TINY = Recipe("classify", "classifier", SPEC, labels=NAMES)


def changed(change):
    """The tiny classifier with other weights in its last layer."""
    out = onnx.ModelProto()
    out.CopyFrom(tiny_classifier())
    for constant in out.graph.initializer:
        if constant.name == "fc":
            value = np.ascontiguousarray(change(numpy_helper.to_array(constant)))
            constant.CopyFrom(numpy_helper.from_array(value.astype(np.float32), "fc"))
    return out


def engine(path, twin=None, typed=None, recipe=TINY):
    """An engine file for the CPU that holds the given graphs."""
    graphs = {"model.onnx": twin, "typed.onnx": typed}
    members = {name: graph.SerializeToString() for name, graph in graphs.items() if graph}
    some_graph = twin or typed
    manifest = Manifest(
        name=path.stem,
        created_by="tests",
        precision="fp32",
        twin_precision="fp32",
        recipe=recipe,
        inputs=tuple(tensor_info(v) for v in some_graph.graph.input),
        outputs=tuple(tensor_info(v) for v in some_graph.graph.output),
        source={"file": "model.onnx", "sha256": ""},
        twin="model.onnx" if twin else None,
        typed_graph="typed.onnx" if typed else None,
        plans=(),
    )
    write_engine_file(path, manifest, members)
    return path
