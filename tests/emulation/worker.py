"""A process in which the extension's own launchers run on the emulated kernels.

The extension looks for ``libcuda.so.1`` once, so the emulated driver must be there first: tests
that need it run a module-level function in this process with ``run``.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from emulation import build
from emulation.emulator import Emulator

T = TypeVar("T")
_emulator: Emulator | None = None


def problem() -> str:
    """Why the launchers cannot run here, in words; empty when they can."""
    from visionrt import _core

    if build.compiler() is None:
        return "the emulation is built by g++"
    return "" if _core.has_kernels() else "this build of the extension has no CUDA half"


def run(function: Callable[..., T], *arguments: Any) -> T:
    """Runs a module's function in the worker and returns its result, or raises its error."""
    return _pool().submit(function, *arguments).result()


def emulator() -> Emulator:
    """Inside the worker: the emulator that launches reach."""
    assert _emulator is not None, "only the worker process has an emulator"
    return _emulator


def queue(call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Inside the worker: calls a launcher; raises EmulationError when anything was found."""
    from visionrt import _core

    try:
        call(*arguments, **options)
    except _core.DriverError:
        emulator().check()
        raise
    emulator().check()


@functools.cache
def _pool() -> ProcessPoolExecutor:
    library = build.kernel_library()
    return ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(str(library), str(library.with_name("libcuda.so.1"))),
    )


def _start(library: str, driver: str) -> None:
    global _emulator  # noqa: PLW0603 - one process, one emulator
    os.environ["VISIONRT_EMULATED_KERNELS"] = library
    # Opened by path, found again by its soname.
    ctypes.CDLL(driver)
    _emulator = Emulator(Path(library))
