"""A stand-in for the part of TensorRT that needs a GPU: runtime, engine, execution context.

Enums, the logger and the output allocator are the real bindings'; a test checks that every name
the double answers to exists in the real class of that role. "Device" addresses are host memory,
so that an engine is any function over arrays.
"""

from __future__ import annotations

import ctypes
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycuda_double as cuda
import tensorrt_rtx as real

Arrays = dict[str, np.ndarray]


@dataclass
class EngineSpec:
    """What the double runs.

    ``tensors`` holds (name, "INPUT" or "OUTPUT", data type, shape, location); ``profiles`` the
    smallest, best and largest shape by input; ``compute`` makes the outputs, whose shapes it is
    also asked for, except those named in ``data_dependent``.
    """

    tensors: list[tuple[str, str, str, tuple[int, ...], str]]
    compute: Callable[[Arrays], Arrays]
    profiles: list[Mapping[str, tuple[Any, Any, Any]]] = field(default_factory=lambda: [{}])
    data_dependent: frozenset[str] = frozenset()
    refuses: str = ""
    fails_to_run: bool = False
    fails_to_infer: bool = False
    scratch_bytes: int = 0
    contexts: int = 100  # that the GPU has room for


destroyed: list[str] = []
profile_switches: list[int] = []


def _note_destruction(what: str) -> None:
    destroyed.append(what if cuda.is_current() else f"{what} without a context")


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._busy = threading.Lock()
        self._scratch: tuple[int, int] | None = None

    def __del__(self) -> None:
        _note_destruction("context")

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle
        profile_switches.append(profile_index)
        self._profile = profile_index
        self._shapes.clear()
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= self._engine.device_memory_size_v2
        self._scratch = (memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        fits = len(shape) == len(low) and all(
            a <= s <= b for a, s, b in zip(low, shape, high, strict=True)
        )
        if fits:
            self._shapes[name] = tuple(shape)
        return fits

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory != 0

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        assert isinstance(output_allocator, real.IOutputAllocator)
        self._allocators[name] = output_allocator
        return True

    def infer_shapes(self) -> list[str]:
        if self._engine.spec.fails_to_infer:
            raise RuntimeError("Error occurred during shape inference")
        inputs = [n for n, mode, *_ in self._engine.spec.tensors if mode == "INPUT"]
        return [n for n in inputs if n not in self._shapes or n not in self._addresses]

    def get_tensor_shape(self, name: str) -> Any:
        if name in self._shapes:
            return real.Dims(self._shapes[name])
        if name in self._engine.spec.data_dependent:
            return self._engine.get_tensor_shape(name)
        return real.Dims(self._outputs()[name].shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle
        assert cuda.is_current()
        assert self._scratch is not None, "no memory was lent to a context that has none"
        assert self._busy.acquire(blocking=False), "two threads in one context"
        try:
            if self._engine.spec.fails_to_run:
                self._engine.logger.log(real.ILogger.ERROR, "enqueue: illegal memory access")
                return False
            for name, array in self._outputs().items():
                address = self._addresses.get(name, 0)
                allocator = self._allocators.get(name)
                if allocator is not None:
                    address = allocator.reallocate_output_async(
                        name, address, array.nbytes, 256, stream_handle
                    )
                    if not address:
                        return False
                    allocator.notify_shape(name, real.Dims(array.shape))
                ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
            return True
        finally:
            self._busy.release()

    def _outputs(self) -> Arrays:
        inputs = {}
        for name, shape in self._shapes.items():
            dtype = np.dtype(real.nptype(self._engine.get_tensor_dtype(name)))
            array = np.empty(shape, dtype)
            ctypes.memmove(array.ctypes.data, self._addresses[name], array.nbytes)
            inputs[name] = array
        return self._engine.spec.compute(inputs)


KERNELS = b"compiled for the GPU"
compiled: list[Any] = []


class IRuntimeCache:
    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, blob: bytes) -> bool:
        if blob != KERNELS:
            return False
        self.kernels = blob
        return True

    def serialize(self) -> bytes:
        return self.kernels


class IRuntimeConfig:
    def __init__(self) -> None:
        self.cache: IRuntimeCache | None = None
        self.strategy: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.cache = cache
        return True


class ICudaEngine:
    def __init__(self, spec: EngineSpec, logger: Any) -> None:
        self.spec = spec
        self.logger = logger
        self.num_io_tensors = len(spec.tensors)
        self.num_optimization_profiles = len(spec.profiles)
        self.device_memory_size_v2 = spec.scratch_bytes

    def __del__(self) -> None:
        if _note_destruction is not None:  # or Python is going
            _note_destruction("engine")

    def create_runtime_config(self) -> IRuntimeConfig:
        assert cuda.is_current()
        return IRuntimeConfig()

    def create_execution_context(self, how: Any) -> IExecutionContext | None:
        assert cuda.is_current()
        # A strategy, or what holds one; full TensorRT is given the former.
        strategy, cache = getattr(how, "strategy", how), getattr(how, "cache", None)
        assert strategy == real.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.spec.contexts == 0:
            self.logger.log(real.ILogger.ERROR, "createExecutionContext: out of memory")
            return None
        self.spec.contexts -= 1
        # It compiles what the cache does not hold.
        if cache is not None and cache.kernels != KERNELS:
            cache.kernels = KERNELS
            compiled.append(self)
        return IExecutionContext(self)

    def get_tensor_name(self, index: int) -> str:
        return self.spec.tensors[index][0]

    def _tensor(self, name: str) -> tuple[str, str, str, tuple[int, ...], str]:
        return next(t for t in self.spec.tensors if t[0] == name)

    def get_tensor_mode(self, name: str) -> Any:
        return getattr(real.TensorIOMode, self._tensor(name)[1])

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(real.DataType, self._tensor(name)[2])

    def get_tensor_shape(self, name: str) -> Any:
        return real.Dims(self._tensor(name)[3])

    def get_tensor_location(self, name: str) -> Any:
        return getattr(real.TensorLocation, self._tensor(name)[4])

    def get_tensor_format(self, name: str) -> Any:
        return real.TensorFormat.LINEAR

    def get_tensor_format_desc(self, name: str) -> str:
        return f"Row major linear {self._tensor(name)[2]} format"

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        shape = self._tensor(name)[3]
        limits = self.spec.profiles[profile_index].get(name, (shape, shape, shape))
        return [real.Dims(s) for s in limits]


class Runtime:
    spec: EngineSpec  # set by library_running

    def __init__(self, logger: Any) -> None:
        assert isinstance(logger, real.ILogger)
        self.logger = logger

    def __del__(self) -> None:
        _note_destruction("runtime")

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        assert cuda.is_current()
        if self.spec.refuses:
            self.logger.log(real.ILogger.ERROR, self.spec.refuses)
            return None
        return ICudaEngine(self.spec, self.logger)


def library_running(spec: EngineSpec) -> types.ModuleType:
    """The real module with a runtime that gives an engine of ``spec`` for every plan."""
    module = types.ModuleType("tensorrt_rtx")
    module.__dict__.update({k: getattr(real, k) for k in dir(real) if not k.startswith("__")})
    module.__version__ = real.__version__
    module.Runtime = type("Runtime", (Runtime,), {"spec": spec})  # type: ignore[attr-defined]
    return module
