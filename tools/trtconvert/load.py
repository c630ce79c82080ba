"""Reads an ONNX file and refuses, by name and reason, what cannot be converted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from trtconvert.editing import apply_edits
from trtconvert.edits import EditedModel, EditStage, GraphEdits
from trtconvert.external_data import read_external_data
from trtconvert.graph import (
    CORE_DOMAINS,
    all_nodes,
    all_tensors,
    image_inputs,
    node_label,
    one_line,
    opset_of,
)
from trtconvert.ordering import order_nodes
from visionrt.errors import InputDataError, ModelError

# Protocol buffers cannot hold more, and every engine builder takes the model as one.
MAX_MODEL_BYTES = (1 << 31) - 1
# What onnx.version_converter can still read.
MIN_OPSET = 7

_OTHER_FORMATS = (
    (b"PK\x03\x04", "a ZIP archive (a PyTorch checkpoint or an engine file?)"),
    (b"\x80\x02", "a Python pickle (a PyTorch checkpoint?)"),
    (b"\x89HDF", "an HDF5 file (a Keras model?)"),
    (b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the file"),
    (b"<", "an HTML or XML page (a failed download?)"),
    (b"ftrt", "a TensorRT plan"),
)


@dataclass(frozen=True)
class LoadedModel:
    """A model that passed every check.

    Attributes:
        model: with external data read in, nodes in topological order.
        path: of the ONNX file.
        sha256: of the ONNX file, hex; external data files are not part of it.
        file_bytes: size of the ONNX file.
        external_files: names of the data files that were read, relative to the model's folder.
        told: fields of the recipe that are known from what was cut off.
        told_by: what that was.
        stages: the edits that changed the graph, to be checked.
    """

    model: ModelProto
    path: Path
    sha256: str
    file_bytes: int
    external_files: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    told_by: str = ""
    stages: tuple[EditStage, ...] = ()

    @property
    def source(self) -> dict[str, str]:
        """What an engine file says of where it comes from."""
        return {"file": self.path.name, "sha256": self.sha256}


def load_model(path: str | os.PathLike[str], edits: GraphEdits | None = None) -> LoadedModel:
    """Read an ONNX model, edit and check it; what is cut off is not checked.

    Args:
        path: of the file.
        edits: what is changed first; None leaves the graph as it is.

    Raises:
        InputDataError: the file, or one with its external data, is missing or cannot be read.
        ModelError: not ONNX, truncated, above 2 GiB, of an unsupported operator set, with an
            unknown operator, a cycle, an undefined input or no inputs; nothing to cut.
        UsageError: ``edits`` names tensors that are not there.
    """
    source = Path(path)
    data = _read(source)
    model = _parse(source, data)
    if not _all_text(model):
        raise _broken("names in UTF-8", "other bytes in a name")
    external = read_external_data(model, source.parent, MAX_MODEL_BYTES)
    left = EditedModel(model) if edits is None else apply_edits(model, edits)
    check_graph(left.model)
    digest = hashlib.sha256(data).hexdigest()
    return LoadedModel(
        *(left.model, source, digest, len(data), external),
        told=left.recipe,
        told_by=left.reason,
        stages=left.stages,
    )


def check_graph(model: ModelProto) -> None:
    """Refuse a graph that is broken or uses an unknown operator; sorts nodes that are unsorted.

    Raises:
        ModelError: with the node and the reason.
    """
    if not model.graph.node or not model.graph.output:
        raise _broken("a graph with nodes and outputs", "an empty graph")
    _check_opset(model)
    _check_interface(model)
    _check_operators(model)
    order_nodes(model.graph)
    _fill_output_shapes(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise _broken("a valid ONNX graph", one_line(error)) from error


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            raise _broken("a model below 2 GiB", f"{path} of {size / 2**30:.1f} GiB")
        return path.read_bytes()
    except OSError as error:
        raise InputDataError(
            f"to read the model {path}",
            got=error.strerror or str(error),
            fix="Check the path and its permissions.",
        ) from error


def _parse(path: Path, data: bytes) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
        whole = model.HasField("graph") and model.ir_version > 0
    except (DecodeError, ValueError):
        whole = False
    if whole:
        return model
    what = "an empty file" if not data else "a truncated file, or another format"
    what = next((text for magic, text in _OTHER_FORMATS if data.startswith(magic)), what)
    what = "a TensorFlow Lite model" if data[4:8] == b"TFL3" else what
    raise ModelError(
        f"an ONNX model in {path}",
        got=what,
        fix="Export or download the model again, as ONNX.",
    )


def _all_text(model: ModelProto) -> bool:
    """Whether names are text: Protocol Buffers hands out bytes for what is not UTF-8."""
    names: list[object] = [entry.domain for entry in model.opset_import]
    names += [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    for tensor in all_tensors(model.graph):
        names.append(tensor.name)
        names += [text for entry in tensor.external_data for text in (entry.key, entry.value)]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        names += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    for node in all_nodes(model.graph):
        names += [node.op_type, node.domain, node.name, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    return all(isinstance(name, str) for name in names)


def _check_opset(model: ModelProto) -> None:
    opset = opset_of(model)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest or model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"ONNX operator set up to {newest} and IR version up to {onnx.IR_VERSION}",
            got=f"operator set {opset}, IR version {model.ir_version}",
            fix="Upgrade the onnx package, or export with an older operator set.",
        )
    if opset < MIN_OPSET:
        raise ModelError(
            f"ONNX operator set {MIN_OPSET} or newer",
            got=f"{opset}",
            fix="Export the model again with operator set 17.",
        )


def _check_interface(model: ModelProto) -> None:
    inputs = image_inputs(model.graph)
    if not inputs:
        raise ModelError(
            "a model with an input",
            got="one whose inputs are all constants",
            fix="Export it with the image as a graph input.",
        )
    for value in [*inputs, *model.graph.output]:
        if not value.type.HasField("tensor_type"):
            raise ModelError(
                "tensors as graph inputs and outputs",
                got=f"{value.name!r} of type {value.type.WhichOneof('value') or 'unknown'}",
                fix="Export the model without sequences, maps or optional values.",
            )
    for value in inputs:
        if not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"the input {value.name!r} to state its number of dimensions",
                got="none",
                fix="Export the model again, with the shape of its input.",
            )


def _check_operators(model: ModelProto) -> None:
    functions = {(function.domain, function.name) for function in model.functions}
    versions = {entry.domain or "": entry.version for entry in model.opset_import}
    opset = opset_of(model)
    for node in all_nodes(model.graph):
        if (node.domain, node.op_type) in functions:
            continue
        domain = "" if node.domain in CORE_DOMAINS else node.domain
        version = opset if domain == "" else versions.get(domain, 0)
        reason = _why_unknown(node.op_type, domain, version)
        if reason:
            raise ModelError(
                "operators of the ONNX standard",
                got=f"{node_label(node)}: {reason}",
                fix="Export the model without this operator.",
            )


def _why_unknown(op_type: str, domain: str, version: int) -> str:
    """Reason an operator is not supported, or an empty string."""
    known_domain = domain in ("", "ai.onnx.ml")
    if known_domain and onnx.defs.has(op_type, domain):
        try:
            schema = onnx.defs.get_schema(op_type, max_inclusive_version=version, domain=domain)
        except onnx.defs.SchemaError:
            return f"not in operator set {version}, which the model declares"
        return "removed from ONNX" if schema.deprecated else ""
    if op_type.endswith("_TRT"):
        return "a TensorRT plugin (cut it off with --nms outside: NMS then runs outside the engine)"
    if domain.startswith("com.microsoft"):
        return "only ONNX Runtime has it (take the model from before its optimizer)"
    return "no such operator" if known_domain else f"the domain {domain!r} is not part of ONNX"


def _fill_output_shapes(model: ModelProto) -> None:
    # Exporters may leave an output's shape out; the checker wants one, and inference knows it.
    if all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise _broken("consistent shapes", one_line(error)) from error
    for value, known in zip(model.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(known)


def _broken(expected: str, got: str) -> ModelError:
    return ModelError(expected, got=got, fix="Export or download the model again.")
