"""The fake driver keeps the real one's rules: contexts, order, memory, errors.

Each test names a function below it, which runs in a process of its own; see fake_gpu.py.
"""

from __future__ import annotations

import ctypes
import subprocess
import threading
from pathlib import Path

import fake_cuda
import numpy as np
import pytest
from fake_gpu import FakeGpu
from raw_kernels import add, launch


def _exports(library: Path, *, defined: bool) -> set[str]:
    kind = "--defined-only" if defined else "--undefined-only"
    done = subprocess.run(
        ["nm", "-D", kind, str(library)], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}
    return {name for name in names if name.startswith("cu") and name[2:3].isupper()}


def test_every_function_that_pycuda_links_exists(fake_gpu: FakeGpu) -> None:
    wanted = _exports(next((fake_gpu.pycuda / "pycuda").glob("_driver*.so")), defined=False)
    assert len(wanted) > 100
    assert wanted <= _exports(fake_gpu.driver / "libcuda.so.1", defined=True)


@pytest.mark.parametrize("defers", [False, True])
def test_round_trip(fake_gpu: FakeGpu, tiny_kernels: Path, defers: bool) -> None:
    fake_gpu.run(round_trip, defers=defers, kernels=tiny_kernels)


def round_trip() -> None:
    from visionrt.device import open_device

    device = open_device(0)
    assert (device.info.compute_capability, device.info.driver_version) == ("86", "13.0")
    stream, memory, pinned = device.stream(), device.buffer(), device.pinned()
    host = pinned.array((100,), np.float32)
    host[:] = np.arange(100)
    address = memory.reserve(host.nbytes)
    assert address % 256 == 0
    with device.current():
        device.copy_to_device(address, host, stream)
        add(address, 100, 0.5, stream.handle)
        stream.synchronize()
        host[:] = -1
        device.copy_to_host(host, address, stream)
        stream.synchronize()
    assert np.array_equal(host, np.arange(100, dtype=np.float32) + 0.5)
    for owned in (stream, memory, pinned):
        owned.close()
    assert fake_cuda.calls("execute") == 1


def test_deferred_work_shows_a_missing_synchronisation(fake_gpu: FakeGpu) -> None:
    fake_gpu.run(missing_synchronisation, defers=True)


def missing_synchronisation() -> None:
    from visionrt.device import open_device

    device = open_device(0)
    stream, memory, pinned = device.stream(), device.buffer(), device.pinned()
    host = pinned.array((4,), np.uint8)
    address = memory.reserve(4)
    with device.current():
        host[:] = 1
        device.copy_to_device(address, host, stream)
        host[:] = 2  # too early: the copy has not run
        stream.synchronize()
        host[:] = 3
        device.copy_to_host(host, address, stream)
        assert host.tolist() == [3] * 4  # not there yet
        stream.synchronize()
    assert host.tolist() == [2] * 4
    for owned in (stream, memory, pinned):
        owned.close()


def test_an_event_orders_two_streams(fake_gpu: FakeGpu, tiny_kernels: Path) -> None:
    fake_gpu.run(two_streams, defers=True, kernels=tiny_kernels)


def two_streams() -> None:
    from visionrt.device import open_device

    device = open_device(0)
    first, second, done = device.stream(), device.stream(), device.event()
    memory, pinned = device.buffer(), device.pinned()
    host = pinned.array((8,), np.float32)
    address = memory.reserve(host.nbytes)
    with device.current():
        host[:] = 1
        device.copy_to_device(address, host, first)
        add(address, 8, 10, first.handle)
        done.record(first)
        add(address, 8, 100, first.handle)
        second.wait_for(done)
        device.copy_to_host(host, address, second)
        second.synchronize()
        assert host.tolist() == [11.0] * 8  # up to the event and no further
        done.synchronize()
        first.synchronize()
    for owned in (first, second, done, memory, pinned):
        owned.close()


def test_calls_need_a_context(fake_gpu: FakeGpu) -> None:
    fake_gpu.run(without_a_context)


def without_a_context() -> None:
    import pycuda.driver as cuda

    raw = ctypes.CDLL("libcuda.so.1")
    address = ctypes.c_uint64()
    assert raw.cuMemAlloc_v2(ctypes.byref(address), 16) == 3  # NOT_INITIALIZED
    cuda.init()
    assert raw.cuMemAlloc_v2(ctypes.byref(address), 16) == fake_cuda.INVALID_CONTEXT
    context = cuda.Device(0).retain_primary_context()
    context.push()
    assert raw.cuMemAlloc_v2(ctypes.byref(address), 16) == 0
    cuda.Context.pop()
    assert raw.cuMemFree_v2(address) == fake_cuda.INVALID_CONTEXT

    seen: list[int] = []
    context.push()  # of this thread only
    other = threading.Thread(target=lambda: seen.append(raw.cuMemFree_v2(address)))
    other.start()
    other.join()
    assert seen == [fake_cuda.INVALID_CONTEXT]
    assert raw.cuMemFree_v2(address) == 0
    assert raw.cuMemFree_v2(address) == 1  # twice
    cuda.Context.pop()
    context.detach()
    assert fake_cuda.live("contexts") == 0


def test_out_of_bounds_writes_and_leaks_are_found(fake_gpu: FakeGpu, tiny_kernels: Path) -> None:
    with pytest.raises(AssertionError, match="written out of bounds"):
        fake_gpu.run(out_of_bounds, kernels=tiny_kernels)
    with pytest.raises(AssertionError, match=r"'device': 1"):
        fake_gpu.run(leak)


def out_of_bounds() -> None:
    from visionrt.device import open_device

    device = open_device(0)
    stream, memory = device.stream(), device.buffer()
    with device.current():
        add(memory.reserve(16), 5, 1e38, stream.handle)
        stream.synchronize()
    memory.close()
    stream.close()


_kept: list[object] = []


def leak() -> None:
    from visionrt.device import open_device

    memory = open_device(0).buffer()
    memory.reserve(1000)
    _kept.append(memory)


@pytest.mark.parametrize("defers", [False, True])
def test_faults(fake_gpu: FakeGpu, tiny_kernels: Path, defers: bool) -> None:
    fake_gpu.run(faults, defers=defers, kernels=tiny_kernels)


def faults() -> None:
    from visionrt.device import open_device
    from visionrt.errors import MissingDependencyError

    device = open_device(0)
    stream, memory = device.stream(), device.buffer()
    fake_cuda.fail("cuMemAlloc", 2, fake_cuda.OUT_OF_MEMORY, times=2)
    memory.reserve(10)
    with pytest.raises(MissingDependencyError, match="out of memory"):
        memory.reserve(100_000)
    memory.reserve(100_000)
    fake_cuda.set_memory(200_000)
    with pytest.raises(MissingDependencyError, match="out of memory"):
        memory.reserve(300_000)
    address = memory.reserve(100)
    with device.current():
        fake_cuda.fail("cuLaunchKernel", 1, 701)
        assert launch("crash", stream.handle) == 701
        stream.synchronize()  # a refused launch leaves the context whole
        add(address, 25, 1.0, stream.handle)
        stream.synchronize()
    memory.close()
    stream.close()


@pytest.mark.parametrize("defers", [False, True])
def test_a_crashed_kernel_loses_the_context(
    fake_gpu: FakeGpu, tiny_kernels: Path, defers: bool
) -> None:
    fake_gpu.run(crash, defers, defers=defers, kernels=tiny_kernels)


def crash(defers: bool) -> None:
    from visionrt.device import open_device
    from visionrt.errors import MissingDependencyError

    device = open_device(0)
    stream = device.stream()
    with device.current():
        # An asynchronous error shows at the launch or, with deferred work, at the next wait.
        assert launch("crash", stream.handle) == (0 if defers else fake_cuda.LAUNCH_FAILED)
        with pytest.raises(MissingDependencyError, match="unspecified launch failure"):
            stream.synchronize()
    with pytest.raises(MissingDependencyError, match="unspecified launch failure"):
        device.stream()
    # The stream cannot be released any more; the process ends without hanging.
    import os

    os._exit(0)


def test_functions_that_are_not_implemented_say_so(fake_gpu: FakeGpu) -> None:
    with pytest.raises(AssertionError, match="cuArrayCreate_v2 is not implemented"):
        fake_gpu.run(unimplemented)


def unimplemented() -> None:
    assert ctypes.CDLL("libcuda.so.1").cuArrayCreate_v2() == 801


def test_a_host_function_runs_in_order_and_may_not_call_the_driver(fake_gpu: FakeGpu) -> None:
    with pytest.raises(AssertionError, match="called from a host function"):
        fake_gpu.run(host_function, defers=True)


def host_function() -> None:
    from visionrt.device import open_device

    raw = ctypes.CDLL("libcuda.so.1")
    device = open_device(0)
    stream = device.stream()
    seen: list[int] = []
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
        lambda _: seen.append(raw.cuCtxSynchronize())
    )
    with device.current():
        assert raw.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), callback, None) == 0
        assert seen == []
        stream.synchronize()
    assert seen == [800]
    stream.close()
