"""Freed memory goes back to the operating system."""

import ctypes
import subprocess
import sys

import pytest

FREED = """
import ctypes
from pathlib import Path
from trtconvert.heap import trim

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(1 << 16) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 1 << 16)
last = libc.malloc(1 << 16)  # stays above them, so that the heap cannot shrink
for block in blocks:
    libc.free(block)
before = resident()
trim()
print(before - resident())
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc's heap is what is trimmed"
)
def test_trim_gives_back_what_lies_below_a_live_block():
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50 << 20


def test_trim_where_there_is_nothing_to_call(monkeypatch):
    from trtconvert import heap

    monkeypatch.setattr(sys, "platform", "darwin")
    heap._trim.cache_clear()
    heap.trim()
    heap._trim.cache_clear()
