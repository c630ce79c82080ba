"""Gives memory that was freed back to the operating system."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from functools import cache


def trim() -> None:
    """Let go of freed memory, where the C library is one that keeps it.

    glibc keeps freed blocks below live ones. A session frees several forms of a model's weights
    while it is made, and the next one may find no room among what is left of them.
    """
    _trim()(0)


def reclaim() -> None:
    """Free what refers to itself in a circle, as graphs of libraries do, and :func:`trim`."""
    gc.collect()
    trim()


@cache
def _trim() -> Callable[[int], int]:
    if sys.platform == "linux":
        # musl and others have no such function, and no need of it.
        found = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if found is not None:
            found.argtypes, found.restype = [ctypes.c_size_t], ctypes.c_int
            return found  # type: ignore[no-any-return]
    return lambda _: 0
