"""Times ways to run a CPU twin, and takes the fastest for a call and for a stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionrt.backends import TWINS, open_twin
from visionrt.backends.base import Backend, BindingBackend
from visionrt.cpu_settings import CpuChoice, CpuSettings, cpu_signature, usable_cores
from visionrt.engine_file import EngineFile, write_engine_file
from visionrt.errors import EngineFileError, MissingDependencyError, ModelError

_ROUNDS = 3  # each candidate is timed in so many blocks; the best one counts
_BLOCK_S = 0.12
_BLOCK_RUNS = 30
# Below this a frame's time is elsewhere, and the choice of an engine cannot be told from noise.
_TOO_SHORT_MS = 0.3
# A second library must pay for itself: its import, and its memory.
_GAIN = 1.03
# Runs of one thread each, as many as cores, had 94 % of them and more on an idle machine of two; 61
# to 84 % beside a process or two, which was enough to choose other settings for a call.
_LEAST_SHARE = 0.9
# Rounds of the same candidate differed by up to 20 % on an idle machine.
_MOST_SPREAD = 1.35

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Timed:
    """A candidate and its figure: milliseconds of a run, or runs a second."""

    settings: CpuSettings
    figure: float


def candidates(cores: int, backends: Sequence[str] = TWINS) -> list[CpuSettings]:
    """Every way that is tried: all, half or one of the cores for a run, and the rest for others."""
    shares = dict.fromkeys((cores, max(1, cores // 2), 1))
    return [CpuSettings(b, threads, cores // threads) for b in backends for threads in shares]


def tune(model: bytes, progress: Progress = lambda done, total: None) -> CpuChoice:
    """Time the candidates on this machine; blocks for some seconds, with every core busy.

    A library that is not installed, or that refuses the graph, is left out.

    Args:
        model: the twin's ONNX bytes.
        progress: told how many of how many blocks are over.

    Raises:
        ModelError: ONNX Runtime refuses the graph.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    cores = usable_cores()
    first = CpuSettings(threads=1, streams=cores)
    with _Runner(model, first) as runner:
        if runner.call_ms() < _TOO_SHORT_MS:
            call_ms, rate = runner.call_ms(), runner.per_second()
            return CpuChoice(cpu_signature(), CpuSettings(threads=1), first, call_ms, rate)
    calls: dict[CpuSettings, float] = {}
    rates: dict[CpuSettings, float] = {}
    spreads: list[float] = []
    shares: list[float] = []
    tried = candidates(cores)
    for index, settings in enumerate(tried):
        progress(index, len(tried))
        # One engine at a time: the threads of an idle one spin for a while, and take a core.
        try:
            runner = _Runner(model, settings)
        except (MissingDependencyError, ModelError):
            if settings.backend == TWINS[0]:
                raise
            continue
        with runner:
            if settings.streams == 1 or settings.threads == 1:
                alone = CpuSettings(settings.backend, settings.threads)
                calls.setdefault(alone, min(runner.call_ms() for _ in range(_ROUNDS)))
            rounds = [runner.per_second() for _ in range(_ROUNDS)]
            spreads.append(max(rounds) / min(rounds))
            if settings.threads == 1:  # the threads of one run may well wait for each other
                shares.append(runner.best_share / cores)
            rates[settings] = max(rounds)
    progress(len(tried), len(tried))
    call = _fastest(calls, lambda figure: 1 / figure)
    stream = _fastest(rates, lambda figure: figure)
    return CpuChoice(
        cpu_signature(),
        call.settings,
        stream.settings,
        call.figure,
        stream.figure,
        doubt(min(shares), float(np.median(spreads))),
    )


def doubt(share: float, spread: float) -> str:
    """Why timings are not to be trusted, for people; empty where nothing says so.

    Args:
        share: CPU time over wall time and cores, in a good round of runs that never wait.
        spread: the best over the worst of rounds that did the same.
    """
    if share < _LEAST_SHARE:
        return f"only {share:.0%} of the cores' time was to be had, as beside other processes"
    if spread > _MOST_SPREAD:
        return f"rounds that did the same differed {spread:.1f}-fold"
    return ""


def tune_file(path: Path, progress: Progress = lambda done, total: None) -> CpuChoice:
    """Tune the CPU twin of an engine file, and store the choice in the file; blocks.

    Raises:
        EngineFileError: not an engine file, or one without a CPU twin.
        InputDataError: the file cannot be written; it is then as it was.
        ModelError, MissingDependencyError: as :func:`tune`.
    """
    with EngineFile(path) as file:
        manifest = file.manifest
        if manifest.twin is None:
            raise EngineFileError(
                f"a CPU twin in {path}", got="none", fix="Build it with --target cpu."
            )
        members = {name: file.read(name) for name in manifest.members}
    choice = tune(members[manifest.twin], progress)
    write_engine_file(path, type(manifest)(**{**vars(manifest), "cpu": choice}), members)
    return choice


def _fastest(figures: dict[CpuSettings, float], speed: Callable[[float], float]) -> Timed:
    """The fastest; of another library than the first only where it gains."""
    best = max(figures, key=lambda settings: speed(figures[settings]))
    own = [settings for settings in figures if settings.backend == TWINS[0]]
    first = max(own, key=lambda settings: speed(figures[settings]))
    if speed(figures[best]) < _GAIN * speed(figures[first]):
        best = first
    return Timed(best, figures[best])


class _Runner:
    """An engine with a bound run per stream; a context manager that closes it."""

    def __init__(self, model: bytes, settings: CpuSettings) -> None:
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

    def __enter__(self) -> _Runner:
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
