"""The GPU layer's rules: memory freed once with the context current, problems in words.

Device memory is host memory here (``pycuda_double``); ``tests/gpu`` runs the same layer on a GPU.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import numpy as np
import pycuda_double as cuda
import pytest

from visionrt import device
from visionrt.errors import MissingDependencyError, UsageError


@pytest.fixture
def live() -> Iterator[Counter[str]]:
    with cuda.installed() as counts:
        yield counts


def test_no_driver_is_said_in_words() -> None:
    device._driver.cache_clear()
    with mock.patch.object(device._core, "driver_problem", return_value="no NVIDIA driver: gone"):
        assert device.gpu_problem(0) == "no NVIDIA driver: gone"
        with pytest.raises(MissingDependencyError, match="Install the NVIDIA driver"):
            device.open_device(0)


def test_missing_pycuda_names_the_command() -> None:
    device._driver.cache_clear()
    with (
        mock.patch.object(device._core, "driver_problem", return_value=""),
        mock.patch.dict(sys.modules, {"pycuda": None, "pycuda.driver": None}),
    ):
        assert "pycuda" in device.gpu_problem(0)
        with pytest.raises(MissingDependencyError, match="pip install pycuda"):
            device.gpu_info(0)


def test_leaving_a_context_that_failed_is_one_clear_error(live: Counter[str]) -> None:
    gpu = device.open_device(0)

    def failing_pop() -> None:
        cuda.contexts().pop()
        raise cuda.LogicError("cuCtxPopCurrent failed: unspecified launch failure")

    with mock.patch.object(cuda.Context, "pop", staticmethod(failing_pop)):
        wanted = r"a GPU that can leave the context, got cuCtxPopCurrent failed: unspecified"
        with pytest.raises(MissingDependencyError, match=wanted), gpu.current():
            pass
        # What failed inside is what is told.
        with pytest.raises(UsageError, match="inside"), gpu.current():
            raise UsageError("nothing", got="an error inside", fix="Do it.")
    assert not cuda.is_current()


def test_broken_pycuda_is_not_called_missing() -> None:
    device._driver.cache_clear()
    broken = mock.MagicMock(spec=["__path__"])
    broken.__path__ = []
    with (
        mock.patch.object(device._core, "driver_problem", return_value=""),
        mock.patch.dict(sys.modules, {"pycuda": broken}),
        mock.patch("builtins.__import__", side_effect=ImportError("undefined symbol: cuInit")),
    ):
        problem = device.gpu_problem(0)
    assert problem == "undefined symbol: cuInit"


def test_a_gpu_that_is_not_there(live: Counter[str]) -> None:
    assert device.gpu_problem(0) == ""
    assert device.gpu_problem(1) == "1 GPU(s)"
    with pytest.raises(MissingDependencyError, match="cuda:0"):
        device.open_device(7)


def test_info(live: Counter[str]) -> None:
    info = device.gpu_info(0)
    assert (info.compute_capability, info.driver_version) == ("86", "13.0")


@pytest.mark.parametrize(("text", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_device_names(text: str, index: int) -> None:
    assert device.device_index(text) == index


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA:0", "cuda:1:2"])
def test_bad_device_names(text: str) -> None:
    with pytest.raises(UsageError, match="cuda:N"):
        device.device_index(text)


def test_copies_and_buffers(live: Counter[str]) -> None:
    gpu = device.open_device(0)
    stream, memory, up, down = gpu.stream(), gpu.buffer(), gpu.pinned(), gpu.pinned()
    sent = up.array((3, 5), np.float16)
    sent[:] = np.arange(15).reshape(3, 5)
    received = down.array((3, 5), np.float16)
    with gpu.current():
        address = memory.reserve(sent.nbytes)
        assert address % 256 == 0
        gpu.copy_to_device(address, sent, stream)
        gpu.copy_to_host(received, address, stream)
        stream.synchronize()
    np.testing.assert_array_equal(received, sent)

    assert memory.reserve(1) == address  # it only grows
    assert memory.reserve(sent.nbytes + 1) != 0
    assert live["device memory"] == 1
    for owned in (memory, up, down, stream):
        owned.close()
        owned.close()
    assert not any(live[k] for k in ("device memory", "pinned memory", "stream"))
    assert live["stream destroyed without a context"] == 0


def test_nothing_is_null_or_copied_at_size_zero(live: Counter[str]) -> None:
    gpu = device.open_device(0)
    memory, pinned, stream = gpu.buffer(), gpu.pinned(), gpu.stream()
    assert memory.reserve(0) != 0
    empty = pinned.array((0, 4), np.float32)
    assert empty.shape == (0, 4)
    with gpu.current():
        gpu.copy_to_host(empty, 0, stream)
    for owned in (memory, pinned, stream):
        owned.close()


def test_a_closed_buffer_can_be_used_again(live: Counter[str]) -> None:
    memory = device.open_device(0).buffer()
    memory.reserve(10)
    memory.close()
    assert memory.address == 0
    assert memory.reserve(10) != 0
    memory.close()
    assert live["device memory"] == 0


def test_another_thread_may_free(live: Counter[str]) -> None:
    gpu = device.open_device(0)
    memory, stream = gpu.buffer(), gpu.stream()
    memory.reserve(100)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with gpu.current(), gpu.current():
                memory.reserve(1000)
            memory.close()
            stream.close()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert live["device memory"] == live["stream"] == 0


def test_the_context_is_popped_after_an_exception(live: Counter[str]) -> None:
    gpu = device.open_device(0)
    with pytest.raises(KeyboardInterrupt), gpu.current():
        raise KeyboardInterrupt
    assert not cuda.is_current()


def test_out_of_memory_says_what_to_do(live: Counter[str]) -> None:
    memory = device.open_device(0).buffer()
    memory.reserve(16)
    with pytest.raises(MissingDependencyError, match="smaller batch"):
        memory.reserve(cuda.MEMORY_BYTES + 1)
    # The old memory went before the new was asked for; nothing half-owned stays.
    assert (memory.address, live["device memory"]) == (0, 0)
    assert memory.reserve(16) != 0
    memory.close()


def test_other_driver_errors_are_this_projects(live: Counter[str]) -> None:
    stream = device.open_device(0).stream()
    with pytest.raises(MissingDependencyError, match="invalid device context"):
        stream.synchronize()  # without the context


def test_event_times(live: Counter[str]) -> None:
    gpu = device.open_device(0)
    stream, start, end = gpu.stream(), gpu.event(), gpu.event()
    with gpu.current():
        start.record(stream)
        end.record(stream)
        stream.wait_for(end)
        end.synchronize()
        assert end.milliseconds_since(start) == 0.0
    for owned in (stream, start, end):
        owned.close()


def test_the_context_is_detached_with_its_device(live: Counter[str]) -> None:
    device.open_device(0)
    assert device.open_device(0) is device.open_device(0)
    assert live["context"] == 1
    device.open_device.cache_clear()
    gc.collect()
    assert live["context"] == 0


def test_close_with_runs_once() -> None:
    class Owner:
        pass

    calls: list[int] = []
    owner = Owner()
    close = device.close_with(owner, lambda: calls.append(1))
    close()
    close()
    del owner
    gc.collect()
    assert calls == [1]
    owner = Owner()
    device.close_with(owner, lambda: calls.append(2))
    del owner
    gc.collect()
    assert calls == [1, 2]
