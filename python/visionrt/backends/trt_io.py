"""The inputs and outputs of a TensorRT engine, and which optimization profile takes which shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from visionrt.errors import EngineFileError, InputDataError
from visionrt.manifest import TensorInfo

# TensorRT's data types that NumPy has as well, by name.
_NUMPY_NAMES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class IoTensor:
    """An input or output of an engine; -1 in ``shape`` is a size set or found at run time.

    ``on_host`` tensors are read or written in host memory (values that decide shapes).
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    is_input: bool
    on_host: bool

    def info(self) -> TensorInfo:
        """As the manifest describes tensors; the symbolic name of a size is its axis."""
        sizes = tuple(s if s >= 0 else f"d{axis}" for axis, s in enumerate(self.shape))
        return TensorInfo(self.name, self.dtype.name, sizes)


@dataclass(frozen=True)
class Profile:
    """Smallest and largest shape of every input, by name, that one profile takes."""

    index: int
    limits: Mapping[str, tuple[Shape, Shape]]

    def takes(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether every input's shape is within the limits."""
        return all(
            len(shape) == len(low)
            and all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True))
            for shape, (low, high) in ((shapes[name], lim) for name, lim in self.limits.items())
        )

    def __str__(self) -> str:
        return ", ".join(
            f"{name} {low}" if low == high else f"{name} {low}…{high}"
            for name, (low, high) in self.limits.items()
        )


def read_tensors(trt: Any, engine: Any) -> tuple[IoTensor, ...]:
    """Every input and output, in the engine's order.

    Raises:
        EngineFileError: a tensor of a type that NumPy lacks, or in a vectorized layout.
    """
    out = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        if kind not in _NUMPY_NAMES or engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
            raise EngineFileError(
                f"inputs and outputs in linear layout of type {', '.join(_NUMPY_NAMES.values())}",
                got=f"{name}: {engine.get_tensor_format_desc(name)}",
                fix="Build the plan with float32, float16 or integer inputs and outputs.",
            )
        out.append(
            IoTensor(
                name=name,
                dtype=np.dtype(_NUMPY_NAMES[kind]),
                shape=tuple(engine.get_tensor_shape(name)),
                is_input=engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
                on_host=engine.get_tensor_location(name) == trt.TensorLocation.HOST,
            )
        )
    return tuple(out)


def read_profiles(engine: Any, inputs: Sequence[IoTensor]) -> tuple[Profile, ...]:
    """Every optimization profile of an engine."""
    out = []
    for index in range(engine.num_optimization_profiles):
        limits = {}
        for tensor in inputs:
            low, _, high = engine.get_tensor_profile_shape(tensor.name, index)
            limits[tensor.name] = (tuple(low), tuple(high))
        out.append(Profile(index, limits))
    return tuple(out)


def pick_profile(profiles: Sequence[Profile], shapes: Mapping[str, Shape], active: int) -> Profile:
    """The active profile when it takes the shapes, else the first that does.

    Raises:
        InputDataError: none does.
    """
    ordered = sorted(profiles, key=lambda p: (p.index != active, p.index))
    for profile in ordered:
        if profile.takes(shapes):
            return profile
    raise InputDataError(
        f"input shapes within {' or '.join(map(str, profiles))}",
        got=", ".join(f"{name} {shape}" for name, shape in shapes.items()),
        fix="Resize the input, or build the plan with other --minShapes and --maxShapes.",
    )
