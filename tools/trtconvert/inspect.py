"""What is inside a model, an engine file or a plan."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from trtconvert.graph import all_nodes, image_inputs, opset_of, tensor_info
from trtconvert.load import load_model
from trtconvert.metadata import recipe_in
from trtconvert.output import REPORT
from visionrt.engine_file import EngineFile
from visionrt.errors import InputDataError, ModelError
from visionrt.plan_header import describe

_ZIP_MAGIC = b"PK\x03\x04"


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a file as JSON types; ``kind`` is ``engine``, ``plan`` or ``model``.

    Raises:
        EngineFileError: a damaged engine file.
        ModelError: see :func:`trtconvert.load.load_model`.
        InputDataError: no such file.
    """
    source = Path(path)
    head = b""
    if source.is_file():
        with source.open("rb") as stream:
            head = stream.read(len(_ZIP_MAGIC))
    if head == _ZIP_MAGIC or source.suffix == ".engine":
        return _engine(source)
    if source.suffix in (".plan", ".trt"):
        return _plan(source)
    return _model(source)


def _engine(path: Path) -> dict[str, Any]:
    with EngineFile(path) as file:
        manifest = file.manifest
        out: dict[str, Any] = {"kind": "engine", "file": str(path), "bytes": path.stat().st_size}
        out |= manifest.to_json()
        graphs = dict.fromkeys(filter(None, (manifest.typed_graph, manifest.twin)))
        out["operators"] = {
            name: operators(ModelProto.FromString(file.read(name))) for name in graphs
        }
        if REPORT in manifest.members:
            report = json.loads(file.read(REPORT))
            out["nodes_by_precision"] = report["nodes_by_precision"]
            out["verification"] = report["verification"]
    return out


def _plan(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputDataError(
            f"to read the plan {path}",
            got=error.strerror or str(error),
            fix="Check the path and its permissions.",
        ) from error
    return {
        "kind": "plan",
        "file": str(path),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "header": str(describe(data)),
    }


def _model(path: Path) -> dict[str, Any]:
    loaded = load_model(path)
    graph = loaded.model.graph
    try:
        recipe = recipe_in(loaded.model)
    except ModelError:
        # An export whose task is not supported can still be looked at.
        recipe = None
    stored = Counter[str]()
    for tensor in graph.initializer:
        dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        stored[dtype] += int(np.prod(tensor.dims, dtype=np.int64))
    return {
        "kind": "model",
        "file": str(path),
        "bytes": loaded.file_bytes,
        "sha256": loaded.sha256,
        "external_files": list(loaded.external_files),
        "producer": f"{loaded.model.producer_name} {loaded.model.producer_version}".strip(),
        "opset": opset_of(loaded.model),
        "ir_version": loaded.model.ir_version,
        "inputs": [vars(tensor_info(value)) for value in image_inputs(graph)],
        "outputs": [vars(tensor_info(value)) for value in graph.output],
        "weights": dict(stored.most_common()),
        "operators": operators(loaded.model),
        "metadata": {entry.key: entry.value for entry in loaded.model.metadata_props},
        "recipe": None if recipe is None else recipe.to_json(),
    }


def operators(model: ModelProto) -> dict[str, int]:
    """How many nodes of each operator, the most frequent first; bodies are counted too."""
    return dict(Counter(node.op_type for node in all_nodes(model.graph)).most_common())
