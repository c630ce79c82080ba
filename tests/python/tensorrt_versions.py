"""The double of TensorRT-RTX, shown as full TensorRT of a version whose public names are recorded.

What that version lacks is not there: an object answers to the names in tests/python/tensorrt_names
alone, and a call that the code makes and the version lacks is an AttributeError. Nothing is listed
by hand but which call gives an object of which class.
"""

from __future__ import annotations

import types
from typing import Any

import tensorrt_contract as contract

# What a call gives that is an object of the library, by class.
_GIVES = {
    "Runtime.deserialize_cuda_engine": "ICudaEngine",
    "ICudaEngine.create_execution_context": "IExecutionContext",
}


class Shown:
    """An object of a class of the library, with the names that a version has."""

    def __init__(self, inner: Any, kind: str, names: set[str]) -> None:
        self._inner = inner
        self._kind = kind
        self._names = names

    def __getattr__(self, name: str) -> Any:
        path = f"{self._kind}.{name}"
        if path not in self._names:
            raise AttributeError(f"this version of TensorRT has no {path}")
        value = getattr(self._inner, name)
        if path not in _GIVES:
            return value

        def call(*arguments: Any) -> Any:
            made = value(*arguments)
            return None if made is None else Shown(made, _GIVES[path], self._names)

        return call


def full_tensorrt(rtx: types.ModuleType, version: str) -> types.ModuleType:
    """``tensorrt`` of a version, over a double of ``tensorrt_rtx``."""
    names = contract.stored_names(version)
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    for name in names & set(dir(rtx)):
        value = getattr(rtx, name)
        members = getattr(value, "__members__", None)
        if members is not None:
            kept = {key: member for key, member in members.items() if f"{name}.{key}" in names}
            value = types.SimpleNamespace(**kept, __members__=kept)
        setattr(module, name, value)
    module.Runtime = lambda logger: Shown(rtx.Runtime(logger), "Runtime", names)  # type: ignore[attr-defined]
    if "init_libnvinfer_plugins" in names:
        module.init_libnvinfer_plugins = lambda logger, namespace: True  # type: ignore[attr-defined]
    return module


def full_plan(version: str) -> bytes:
    """The header of a plan of full TensorRT and nothing behind it."""
    return b"ftrt" + bytes(20) + bytes(int(part) for part in version.split("."))
