"""A CPU twin with inputs bound, that times its own runs: one at a time, or as many as it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from visionrt.backends import open_twin
from visionrt.backends.base import Backend, BindingBackend
from visionrt.cpu_settings import CpuSettings
from visionrt.errors import ModelError

_BLOCK_S = 0.12
_BLOCK_RUNS = 30
_BURST_RUNS = 5


class CpuRunner:
    """An engine with a bound run per stream, fed zeros; a context manager that closes it.

    Args:
        model: the ONNX bytes, or a file.
        settings: how it is run.

    Raises:
        ModelError, MissingDependencyError: as :func:`visionrt.backends.open_twin`.
    """

    def __init__(self, model: bytes | Path, settings: CpuSettings) -> None:
        self._backend = open_twin(
            model,
            backend=settings.backend,
            threads=settings.threads,
            streams=settings.streams,
        )
        self.best_share = 0.0  # the most CPU time over wall time of a block of per_second
        # As in Model.stream: one more than the engine runs, where it runs one at a time.
        callers = max(2, settings.streams)
        try:
            self._runs = [_bound(self._backend) for _ in range(callers)]
            for run in self._runs:
                run()  # the first run allocates
        except BaseException:
            self._backend.close()
            raise

    def call_ms(self) -> float:
        """Median of a block of runs, one at a time, milliseconds."""
        times: list[float] = []
        end = time.perf_counter() + _BLOCK_S
        while not times or (len(times) < _BLOCK_RUNS and time.perf_counter() < end):
            started = time.perf_counter()
            self._runs[0]()
            times.append(time.perf_counter() - started)
        return float(np.median(times)) * 1e3

    def burst_ms(self) -> float:
        """Mean of a few runs, one at a time, milliseconds.

        The first one, which finds the threads asleep, counts: calls come in tight loops and singly.
        """
        started = time.perf_counter()
        count = 0
        while not count or (count < _BURST_RUNS and time.perf_counter() - started < _BLOCK_S):
            self._runs[0]()
            count += 1
        return (time.perf_counter() - started) / count * 1e3

    def per_second(self) -> float:
        """Runs a second of a block in which every stream is busy."""
        started, used = time.perf_counter(), time.process_time()
        end = started + _BLOCK_S
        counts = [0] * len(self._runs)
        errors: list[Exception] = []

        def work(index: int) -> None:
            try:
                while not counts[index] or (
                    counts[index] < _BLOCK_RUNS and time.perf_counter() < end
                ):
                    self._runs[index]()
                    counts[index] += 1
            except ModelError as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(counts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        took = time.perf_counter() - started
        self.best_share = max(self.best_share, (time.process_time() - used) / took)
        return sum(counts) / took

    def __enter__(self) -> CpuRunner:
        return self

    def __exit__(self, *error: object) -> None:
        self._runs = []
        self._backend.close()


def _bound(backend: Backend) -> Callable[[], object]:
    feeds = {
        info.name: np.zeros([s if isinstance(s, int) else 1 for s in info.shape], info.dtype)
        for info in backend.inputs
    }
    if len(feeds) == 1 and isinstance(backend, BindingBackend):
        return backend.bind(*feeds.popitem())
    return lambda: backend.run(feeds)
