"""Makes the execution contexts of an engine, which share their lane's scratch memory.

A CUDA graph recorded from a context is valid as long as the context keeps its shapes, addresses
and memory. So a lane makes a context for each shape that it meets, and lends all of them one block
of memory (the USER_MANAGED strategy): they never run at once.

TensorRT-RTX compiles its kernels for the GPU when contexts are made and shapes are first seen; its
runtime cache keeps them for the next process. The library itself refuses a cache of another GPU,
driver or version.
"""

from __future__ import annotations

from typing import Any

from visionrt.backends.trt_library import MessageLog
from visionrt.errors import MissingDependencyError


class ContextMaker:
    """Makes contexts for one engine; the device's context must be current throughout.

    Args:
        trt: the library.
        engine: of the library.
        log: of the library's messages.
        kernels: an earlier :meth:`compiled_kernels`, or nothing.

    Attributes:
        scratch_bytes: of device memory that each context needs while it runs.
    """

    def __init__(self, trt: Any, engine: Any, log: MessageLog, kernels: bytes = b"") -> None:
        self._engine = engine
        self._log = log
        self._how: Any = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._cache: Any = None
        self.scratch_bytes = int(engine.device_memory_size_v2)
        if hasattr(trt, "IRuntimeCache"):  # TensorRT-RTX alone compiles at run time
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(self._how)
            cache = config.create_runtime_cache()
            if kernels:
                cache.deserialize(kernels)  # refused: as if there were none
            config.set_runtime_cache(cache)
            self._how, self._cache = config, cache

    def make(self, scratch: int) -> Any:
        """A new context on ``scratch_bytes`` of device memory at an address.

        Raises:
            MissingDependencyError: not enough GPU memory.
        """
        mark = self._log.mark()
        context = self._engine.create_execution_context(self._how)
        if context is None:
            raise MissingDependencyError(
                "a GPU that can make an execution context",
                got=self._log.quote_since(mark),
                fix="Free GPU memory; where it persists, run visionrt doctor.",
            )
        context.set_device_memory(scratch, self.scratch_bytes)
        return context

    def compiled_kernels(self) -> bytes:
        """What TensorRT-RTX has compiled so far; nothing for full TensorRT."""
        if self._cache is None:
            return b""
        made = self._cache.serialize()
        return b"" if made is None else bytes(memoryview(made))

    def close(self) -> None:
        """Let go of the engine, after its contexts. May be called twice."""
        self._how = self._cache = self._engine = None
