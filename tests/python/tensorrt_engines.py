"""Plans and engines that tests of the TensorRT back end open on the double of the library."""

from __future__ import annotations

import struct
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import numpy as np
import tensorrt_double as double

from visionrt.backends import tensorrt as backend_module


def rtx_plan(*, sm_mask: int = 0b100, version: bytes = b"\x01\x07\x01\x74", cut: int = 0) -> bytes:
    """The header of a TensorRT-RTX plan for SM86 and nothing behind it."""
    head = b"vtrt" + struct.pack("<IIIQ", 0, 2, 0, 64) + version + b"vtrt"
    return (head + struct.pack("<I", sm_mask)).ljust(64, b"\0")[: 64 - cut]


def runs(spec: double.EngineSpec) -> AbstractContextManager[Any]:
    library = double.library_running(spec)
    return mock.patch.object(backend_module, "load_library", return_value=library)


def opened(spec: double.EngineSpec, **options: Any) -> backend_module.TensorRTBackend:
    with runs(spec):
        return backend_module.open_plan(rtx_plan(), **options)


FIXED = double.EngineSpec(
    tensors=[
        ("x", "INPUT", "FLOAT", (2, 3), "DEVICE"),
        ("double", "OUTPUT", "FLOAT", (2, 3), "DEVICE"),
        ("total", "OUTPUT", "HALF", (1,), "DEVICE"),
    ],
    compute=lambda f: {"double": f["x"] * 2, "total": f["x"].sum(keepdims=True)[0].astype("f2")},
)
DYNAMIC = double.EngineSpec(
    tensors=[
        ("x", "INPUT", "UINT8", (-1, 3, -1, -1), "DEVICE"),
        ("y", "OUTPUT", "INT32", (-1, 3, -1, -1), "DEVICE"),
    ],
    compute=lambda f: {"y": f["x"].astype(np.int32) - 300},
    profiles=[
        {"x": ((1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 64, 64))},
        {"x": ((2, 3, 8, 8), (4, 3, 8, 8), (8, 3, 16, 16))},
    ],
)
NONZERO = double.EngineSpec(
    tensors=[
        ("x", "INPUT", "FLOAT", (8,), "DEVICE"),
        ("at", "OUTPUT", "INT64", (-1, 1), "DEVICE"),
        ("x2", "OUTPUT", "FLOAT", (8,), "DEVICE"),
    ],
    compute=lambda f: {"at": np.argwhere(f["x"] > 0), "x2": f["x"] * 2},
    data_dependent=frozenset({"at"}),
)


def nothing_is_left(live: Counter[str]) -> bool:
    return not any(live[k] for k in ("device memory", "pinned memory", "stream"))
