"""Reads weights that a model keeps in other files, without trusting what it says about them."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from trtconvert.graph import all_tensors
from visionrt.errors import InputDataError, ModelError


def read_external_data(model: ModelProto, folder: Path, max_bytes: int) -> tuple[str, ...]:
    """Replace every reference to a data file by the data; returns the files' names.

    Args:
        model: changed in place.
        folder: of the model; data files must lie inside it.
        max_bytes: for all external tensors together.

    Raises:
        InputDataError: a data file is missing or too short.
        ModelError: a reference leaves the folder, is malformed, or the total is too large.
    """
    tensors = [
        tensor
        for tensor in all_tensors(model.graph)
        if tensor.data_location == TensorProto.EXTERNAL
    ]
    total = model.ByteSize() + sum(_byte_count(tensor) for tensor in tensors)
    if tensors and total > max_bytes:
        raise ModelError(
            "a model below 2 GiB, external data included",
            got=f"{total / 2**30:.1f} GiB",
            fix="Convert a smaller variant of the model.",
        )
    files: dict[str, Path] = {}
    for tensor in tensors:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in files:
            files[location] = _inside(folder, location, tensor.name)
        tensor.raw_data = _read_slice(files[location], tensor, entries)
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
    return tuple(files)


def _byte_count(tensor: TensorProto) -> int:
    if any(size < 0 for size in tensor.dims):
        raise _malformed(tensor.name, f"dimensions {list(tensor.dims)}")
    elements: int = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1):
        return (elements + 1) // 2
    try:
        itemsize = int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError as error:
        raise _malformed(tensor.name, f"element type {tensor.data_type}") from error
    return elements * itemsize


def _inside(folder: Path, location: str, tensor: str) -> Path:
    path = folder / location
    # resolve() follows symbolic links too, which would leave the folder as well as ".." does.
    if not location or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"the data of tensor {tensor!r} in a file inside the model's folder",
            got=repr(location),
            fix="Save the model again with its data file beside it; this one may be hostile.",
        )
    if not path.is_file():
        raise InputDataError(
            f"the model's external data file {path}",
            got="no such file",
            fix="Put the data file beside the model, under the name it was exported with.",
        )
    return path


def _read_slice(path: Path, tensor: TensorProto, entries: dict[str, str]) -> bytes:
    wanted = _byte_count(tensor)
    offset_text, length_text = entries.get("offset", "0"), entries.get("length", str(wanted))
    if not (offset_text.isdecimal() and length_text.isdecimal()):
        raise _malformed(tensor.name, f"offset {offset_text!r}, length {length_text!r}")
    if int(length_text) != wanted:
        raise _malformed(tensor.name, f"{length_text} bytes where its shape needs {wanted}")
    try:
        with path.open("rb") as stream:
            stream.seek(int(offset_text))
            data = stream.read(wanted)
    except (OSError, OverflowError) as error:
        raise InputDataError(
            f"to read {path}", got=str(error), fix="Check the file and its permissions."
        ) from error
    if len(data) != wanted:
        raise InputDataError(
            f"{wanted} bytes at offset {offset_text} of {path} for tensor {tensor.name!r}",
            got=f"{len(data)}",
            fix="The data file is truncated: copy or download it again.",
        )
    return data


def _malformed(tensor: str, got: str) -> ModelError:
    return ModelError(
        f"a well-formed reference to the external data of tensor {tensor!r}",
        got=got,
        fix="Export the model again.",
    )
