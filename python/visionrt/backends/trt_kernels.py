"""Keeps what TensorRT-RTX compiled for a plan on this GPU, from one process to the next.

It only saves time: a folder that cannot be used makes every process compile for itself.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from visionrt.backends.trt_library import TENSORRT_RTX
from visionrt.device import GpuInfo
from visionrt.errors import InputDataError, MissingDependencyError
from visionrt.plan_cache import PlanCache, cache_folder, key_of


class KernelCache:
    """The compiled kernels of one plan, in the folder of :mod:`visionrt.plan_cache`.

    Args:
        library: that runs the plan; full TensorRT has nothing to keep.
        plan: the plan's bytes.
        gpu: that it runs on.
    """

    def __init__(self, library: Any, plan: bytes, gpu: GpuInfo) -> None:
        self._cache: PlanCache | None = None
        self._key = ""
        self._known = b""
        if library.__name__ != TENSORRT_RTX:
            return
        with contextlib.suppress(MissingDependencyError):  # no home folder: nothing is kept
            self._cache = PlanCache(cache_folder())
        self._key = key_of(
            {
                "kernels of": hashlib.sha256(plan).hexdigest(),
                "gpu": gpu.name,
                "compute_capability": gpu.compute_capability,
                "driver": gpu.driver_version,
                "library_version": str(library.__version__),
            }
        )

    def read(self) -> bytes:
        """What was kept; nothing where there is none, or it cannot be read."""
        entry = None
        if self._cache is not None:
            with contextlib.suppress(InputDataError):
                entry = self._cache.read(self._key)
        self._known = b"" if entry is None else entry.data
        return self._known

    def write(self, kernels: bytes) -> None:
        """Keep them for the next process, where they differ from what was read."""
        if self._cache is None or not kernels or kernels == self._known:
            return
        with contextlib.suppress(InputDataError):
            self._cache.write(self._key, {"kernels": True}, kernels)
            self._known = kernels
