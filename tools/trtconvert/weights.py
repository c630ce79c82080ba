"""Keeps the large constants of graphs in a temporary file, so that graphs are cheap to copy.

A conversion makes dozens of graphs that share their weights: with taps, with quantized copies, with
other precisions. With the weights inside, each would hold them two or three times while it is made,
serialized and loaded. Here they lie in one file as ONNX external data. ONNX Runtime maps it, and
lets go of the pages once it has laid the weights out in its own way.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from visionrt.errors import InputDataError

# Smaller constants stay in the graph, where shape inference and folding can read them.
LEAST_BYTES = 16 << 10
_NAME = "weights.bin"
# Of the longest vector registers, which kernels load from mapped memory.
_ALIGNMENT = 64
# Bytes of an element, by type; others stay in the graph.
_PLAIN: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.INT8: 1,
}


class WeightFile:
    """A file of constants in a folder of its own, which goes with this object.

    Attributes:
        folder: that references are relative to; for ONNX Runtime.

    Raises:
        InputDataError: there is no room for temporary files.
    """

    def __init__(self) -> None:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="trtconvert-"))
            weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
            self._path = self.folder / _NAME
            self._path.touch()
        except OSError as error:
            raise _no_room(error) from error
        self._size = self._models = 0
        self._places: dict[bytes, int] = {}

    def load(self, path: Path) -> ModelProto:
        """A model with its large constants in this file. Raises as ``onnx.load`` does."""
        return self.aside(onnx.load(path))

    def aside(self, model: ModelProto) -> ModelProto:
        """A copy of a model that only refers to its large constants; ``model`` is not changed."""
        return _with_constants(model, map(self.stored, model.graph.initializer))

    def whole(self, model: ModelProto) -> ModelProto:
        """The model with the constants of this file in it again, which changes it."""
        for tensor in model.graph.initializer:
            if is_aside(tensor):
                tensor.CopyFrom(numpy_helper.from_array(self.array(tensor), tensor.name))
        return model

    def saved(self, model: ModelProto) -> Path:
        """Where a model lies beside this file, which has its large constants; for ONNX Runtime.

        Raises:
            InputDataError: the disk is full.
        """
        self._models += 1
        path = self.folder / f"{self._models}.onnx"
        try:
            path.write_bytes(self.aside(model).SerializeToString())
        except OSError as error:
            raise _no_room(error) from error
        return path

    def stored(self, tensor: TensorProto) -> TensorProto:
        """``tensor`` itself where it is small, else a reference to its values in the file."""
        if is_aside(tensor) or not _is_large(tensor):
            return tensor
        return self.constant(numpy_helper.to_array(tensor), tensor.name)

    def constant(self, value: NDArray[Any], name: str) -> TensorProto:
        """A constant of a graph; equal values are stored once.

        Raises:
            InputDataError: the disk is full.
        """
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        if value.nbytes < LEAST_BYTES or kind not in _PLAIN:
            return numpy_helper.from_array(value, name)
        raw = np.ascontiguousarray(value).view(np.uint8).data
        key = hashlib.sha1(raw, usedforsecurity=False).digest()
        if key not in self._places:
            self._places[key] = self._append(raw)
        out = TensorProto(
            name=name,
            data_type=kind,
            dims=value.shape,
            data_location=TensorProto.EXTERNAL,
        )
        place = {"location": _NAME, "offset": self._places[key], "length": value.nbytes}
        for label, entry in place.items():
            out.external_data.add(key=label, value=str(entry))
        return out

    def array(self, tensor: TensorProto) -> NDArray[Any]:
        """Values of a constant, in this file or not; mapped and read-only where in the file."""
        if not is_aside(tensor):
            return numpy_helper.to_array(tensor)
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        mapped = np.memmap(self._path, kind, "r", self.offset(tensor), tuple(tensor.dims))
        return np.asarray(mapped)

    def offset(self, tensor: TensorProto) -> int:
        """Where in the file a constant begins: equal ones begin at the same place."""
        return int(_entries(tensor)["offset"])

    def _append(self, raw: memoryview) -> int:
        offset = -(-self._size // _ALIGNMENT) * _ALIGNMENT
        try:
            with self._path.open("r+b") as stream:
                stream.seek(offset)
                stream.write(raw)
        except OSError as error:
            raise _no_room(error) from error
        self._size = offset + raw.nbytes
        return offset


def without_large(model: ModelProto) -> ModelProto:
    """A copy for what looks at types and shapes alone: large constants have no values there."""
    return _with_constants(model, map(_emptied, model.graph.initializer))


def with_values_of(model: ModelProto, source: ModelProto) -> ModelProto:
    """``model``, which this changes, with the constants of ``source`` for those of their names."""
    whole = {tensor.name: tensor for tensor in source.graph.initializer}
    for tensor in model.graph.initializer:
        if is_aside(tensor):
            tensor.CopyFrom(whole[tensor.name])
    return model


def is_aside(tensor: TensorProto) -> bool:
    """Whether a constant lies in a file."""
    return tensor.data_location == TensorProto.EXTERNAL


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _is_large(tensor: TensorProto) -> bool:
    size: int = math.prod(tensor.dims) * _PLAIN.get(tensor.data_type, 0)
    return size >= LEAST_BYTES


def _emptied(tensor: TensorProto) -> TensorProto:
    if is_aside(tensor) or not _is_large(tensor):
        return tensor
    out = TensorProto(
        name=tensor.name,
        data_type=tensor.data_type,
        dims=tensor.dims,
        data_location=TensorProto.EXTERNAL,
    )
    out.external_data.add(key="location", value="left-out")
    return out


def _with_constants(model: ModelProto, constants: Iterable[TensorProto]) -> ModelProto:
    """A copy of ``model`` with these instead of its own; ``model`` is not changed."""
    out = ModelProto()
    _copy_fields(model, out, but="graph")
    _copy_fields(model.graph, out.graph, but="initializer")
    out.graph.initializer.extend(constants)
    return out


def _copy_fields(source: Message, target: Message, *, but: str) -> None:
    for field, value in source.ListFields():
        if field.name == but:
            continue
        present = getattr(target, field.name)
        if hasattr(present, "extend"):
            present.extend(value)
        else:
            setattr(target, field.name, value)


def _no_room(error: OSError) -> InputDataError:
    return InputDataError(
        f"room for temporary files in {tempfile.gettempdir()}",
        got=error.strerror or str(error),
        fix="Free some space there, or set TMPDIR to another folder.",
    )
