"""Recording, launching and updating CUDA graphs, on the fake driver.

Each test names a function below it, which runs in a process of its own; see fake_gpu.py.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import fake_cuda
import numpy as np
import pytest
from fake_gpu import FakeGpu
from raw_kernels import add, launch

from visionrt import _core


def _copy(to: int, source: int, count: int, stream: int) -> None:
    arguments = (ctypes.c_uint64(to), ctypes.c_uint64(source), ctypes.c_int(count))
    assert launch("copy", stream, *arguments) == 0


class Frame:
    """A stream with buffers and a small piece of work: H2D, two kernels, D2H."""

    def __init__(self, count: int = 8) -> None:
        from visionrt.device import open_device

        self.device = open_device(0)
        self.count = count
        self.stream = self.device.stream()
        self.memory = [self.device.buffer() for _ in range(2)]
        self.pinned = [self.device.pinned() for _ in range(2)]
        self.given, self.result = (p.array((count,), np.float32) for p in self.pinned)
        self.a, self.b = (m.reserve(4 * count) for m in self.memory)

    def enqueue(self, amount: float = 1.0) -> None:
        self.device.copy_to_device(self.a, self.given, self.stream)
        add(self.a, self.count, amount, self.stream.handle)
        _copy(self.b, self.a, self.count, self.stream.handle)
        self.device.copy_to_host(self.result, self.b, self.stream)

    def record(self, amount: float = 1.0) -> _core.GraphRecording:
        _core.graph_begin(self.stream.handle)
        self.enqueue(amount)
        return _core.graph_end(self.stream.handle)

    def run(self, graph: _core.Graph, value: float) -> float:
        self.given[:] = value
        self.result[:] = np.nan
        graph.launch(self.stream.handle)
        self.stream.synchronize()
        assert len(set(self.result.tolist())) == 1
        return float(self.result[0])

    def close(self) -> None:
        for owned in (*self.memory, *self.pinned, self.stream):
            owned.close()


@pytest.mark.parametrize("defers", [False, True])
def test_replay(fake_gpu: FakeGpu, tiny_kernels: Path, defers: bool) -> None:
    fake_gpu.run(replay, defers=defers, kernels=tiny_kernels)


def replay() -> None:
    frame = Frame()
    with frame.device.current():
        frame.given[:] = 5
        frame.result[:] = 0
        recording = frame.record()
        assert (recording.node_count, recording.kernel_count) == (4, 2)
        frame.stream.synchronize()
        assert frame.result.tolist() == [0.0] * 8  # recorded, not run
        graph = _core.Graph(recording)
        del recording
        assert fake_cuda.live("graphs") == 0
        launches = fake_cuda.calls("cuLaunchKernel")
        assert [frame.run(graph, value) for value in (1, 2, 3)] == [2, 3, 4]
        assert fake_cuda.calls("cuLaunchKernel") == launches
        assert fake_cuda.calls("cuGraphLaunch") == 3
        graph.close()
        graph.close()
        with pytest.raises(_core.DriverError, match="closed"):
            graph.launch(frame.stream.handle)
    frame.close()


@pytest.mark.parametrize("defers", [False, True])
def test_update(fake_gpu: FakeGpu, tiny_kernels: Path, defers: bool) -> None:
    fake_gpu.run(update, defers=defers, kernels=tiny_kernels)


def update() -> None:
    small, large = Frame(8), Frame(100)
    stream = small.stream.handle
    with small.device.current():
        graph = _core.Graph(small.record())
        assert small.run(graph, 1) == 2
        small.given[:] = 3
        graph.launch(stream)
        assert graph.update(large.record(10)) == ""  # other addresses, sizes and arguments
        small.stream.synchronize()
        assert small.result.tolist() == [4.0] * 8  # the launch before kept its own
        assert large.run(graph, 1) == 11

        _core.graph_begin(stream)
        add(small.a, 8, 1.0, stream)
        other = _core.graph_end(stream)
        assert graph.update(other) == "another sequence of work"
        assert large.run(graph, 2) == 12  # nothing changed
        assert fake_cuda.calls("cuGraphInstantiateWithFlags") == 1
        del other
        graph.close()
    small.close()
    large.close()


def test_what_is_not_allowed_while_recording(fake_gpu: FakeGpu, tiny_kernels: Path) -> None:
    fake_gpu.run(spoiled, kernels=tiny_kernels)


def spoiled() -> None:
    from visionrt.errors import MissingDependencyError

    frame = Frame()
    stream = frame.stream.handle
    memory = frame.device.buffer()
    with frame.device.current():
        for not_allowed in (
            frame.stream.synchronize,
            lambda: memory.reserve(100),
            frame.device.synchronize,
        ):
            _core.graph_begin(stream)
            with pytest.raises(MissingDependencyError, match="not permitted when stream is capt"):
                not_allowed()
            with pytest.raises(_core.DriverError, match="previous error during capture"):
                _core.graph_end(stream)
            memory.close()
        # Another thread may do all of that, for the mode is THREAD_LOCAL.
        _core.graph_begin(stream)
        frame.enqueue()
        other = threading.Thread(target=lambda: [memory.reserve(n) for n in (100, 1000)])
        other.start()
        other.join()
        graph = _core.Graph(_core.graph_end(stream))
        assert frame.run(graph, 1) == 2
        graph.close()
        # Twice, the default stream, without a begin, and discarded.
        _core.graph_begin(stream)
        with pytest.raises(_core.DriverError, match="cuStreamBeginCapture"):
            _core.graph_begin(stream)
        _core.graph_discard(stream)
        _core.graph_discard(stream)
        with pytest.raises(_core.DriverError, match="cuStreamBeginCapture"):
            _core.graph_begin(0)
        with pytest.raises(_core.DriverError, match="cuStreamEndCapture"):
            _core.graph_end(stream)
        graph = _core.Graph(frame.record())
        assert frame.run(graph, 1) == 2
        graph.close()
    memory.close()
    frame.close()


@pytest.mark.parametrize(
    "call",
    [
        *["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"],
        *["cuGraphLaunch", "cuGraphExecUpdate", "cuLaunchKernel"],
    ],
)
def test_a_failing_call_leaks_nothing(fake_gpu: FakeGpu, tiny_kernels: Path, call: str) -> None:
    fake_gpu.run(failing_call, call, kernels=tiny_kernels)


def use_a_graph(frame: Frame) -> None:
    try:
        graph = _core.Graph(frame.record())
    except (_core.DriverError, AssertionError):
        _core.graph_discard(frame.stream.handle)
        raise
    graph.update(frame.record())
    graph.launch(frame.stream.handle)


def failing_call(call: str) -> None:
    frame = Frame()
    with frame.device.current():
        good = _core.Graph(frame.record())
        fake_cuda.fail(call, 1, 999)
        with pytest.raises((_core.DriverError, AssertionError)) as caught:
            use_a_graph(frame)
        if call != "cuLaunchKernel":
            assert call.removesuffix("WithFlags") in str(caught.value)
            assert "unknown error" in str(caught.value)
        assert fake_cuda.pending_faults() == 0
        if call == "cuStreamEndCapture":
            _core.graph_discard(frame.stream.handle)
        del caught
        assert frame.run(good, 1) == 2
        good.close()
    frame.close()


def test_two_streams_join_one_recording(fake_gpu: FakeGpu, tiny_kernels: Path) -> None:
    fake_gpu.run(fork_and_join, kernels=tiny_kernels)


def fork_and_join() -> None:
    frame, side = Frame(), Frame()
    fork, join = frame.device.event(timing=False), frame.device.event(timing=False)
    with frame.device.current():
        _core.graph_begin(frame.stream.handle)
        add(frame.a, 8, 1.0, frame.stream.handle)
        fork.record(frame.stream)
        side.stream.wait_for(fork)
        add(frame.a, 8, 10.0, side.stream.handle)
        with pytest.raises(_core.DriverError, match="unjoined work"):
            _core.graph_end(frame.stream.handle)

        _core.graph_begin(frame.stream.handle)
        frame.device.copy_to_device(frame.a, frame.given, frame.stream)
        fork.record(frame.stream)
        side.stream.wait_for(fork)
        add(frame.a, 8, 10.0, side.stream.handle)
        join.record(side.stream)
        frame.stream.wait_for(join)
        frame.device.copy_to_host(frame.result, frame.a, frame.stream)
        graph = _core.Graph(_core.graph_end(frame.stream.handle))
        assert frame.run(graph, 5) == 15
        graph.close()
    for owned in (frame, side, fork, join):
        owned.close()
