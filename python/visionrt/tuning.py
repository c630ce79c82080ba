"""Times ways to run a CPU twin, and takes the fastest for a call and for a stream."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionrt.backends import TWINS
from visionrt.contest import contest
from visionrt.cpu_runner import CpuRunner
from visionrt.cpu_settings import CpuChoice, CpuSettings, cpu_signature, usable_cores
from visionrt.engine_file import EngineFile, write_engine_file
from visionrt.errors import EngineFileError, MissingDependencyError, ModelError

_ROUNDS = 3  # each candidate is timed in so many blocks; the best one counts
# Below this a frame's time is elsewhere, and the choice of an engine cannot be told from noise.
_TOO_SHORT_MS = 0.3
# Alone and one after the other, candidates were misjudged by up to 20 %: those within _NEAR of the
# best are timed again in turn.
_NEAR = 1.5
_FINALISTS = 3
_FINAL_S = 8.0
_FINALS = 2  # of calls, and of streams
# Of the cost of a run, in the median round: what another library than the first has to save.
_GAIN = 1.01
# Runs of one thread each, as many as cores, had 94 % of them and more on an idle machine of two; 61
# to 84 % beside a process or two, which was enough to choose other settings for a call.
_LEAST_SHARE = 0.9
# Rounds of the same candidate differed by up to 20 % on an idle machine.
_MOST_SPREAD = 1.35

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Timed:
    """A candidate and its cost: milliseconds of a call, or seconds a run of a stream."""

    settings: CpuSettings
    cost: float


def candidates(cores: int, backends: Sequence[str] = TWINS) -> list[CpuSettings]:
    """Every way that is tried: all, half or one of the cores for a run, and the rest for others."""
    shares = dict.fromkeys((cores, max(1, cores // 2), 1))
    return [CpuSettings(b, threads, cores // threads) for b in backends for threads in shares]


def step_count() -> int:
    """How many steps :func:`tune` tells of on this machine: a candidate or a final each."""
    return len(candidates(usable_cores())) + _FINALS


def tune(model: bytes | Path, progress: Progress = lambda done, total: None) -> CpuChoice:
    """Time the candidates on this machine; blocks for some seconds, with every core busy.

    A library that is not installed, or that refuses the graph, is left out.

    Args:
        model: the twin's ONNX bytes, or a file.
        progress: told how many of how many steps are over.

    Raises:
        ModelError: ONNX Runtime refuses the graph.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    cores = usable_cores()
    first = CpuSettings(threads=1, streams=cores)
    with CpuRunner(model, first) as runner:
        if runner.call_ms() < _TOO_SHORT_MS:
            call_ms, rate = runner.call_ms(), runner.per_second()
            return CpuChoice(cpu_signature(), CpuSettings(threads=1), first, call_ms, rate)
    calls: dict[CpuSettings, float] = {}
    costs: dict[CpuSettings, float] = {}
    spreads: list[float] = []
    shares: list[float] = []
    tried = candidates(cores)
    for index, settings in enumerate(tried):
        progress(index, len(tried) + _FINALS)
        # One engine at a time: the threads of an idle one spin for a while, and take a core.
        try:
            runner = CpuRunner(model, settings)
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
            costs[settings] = 1 / max(rounds)
    progress(len(tried), len(tried) + _FINALS)
    call = _final(model, calls, CpuRunner.burst_ms)
    progress(len(tried) + 1, len(tried) + _FINALS)
    stream = _final(model, costs, lambda runner: 1 / runner.per_second())
    progress(len(tried) + _FINALS, len(tried) + _FINALS)
    return CpuChoice(
        cpu_signature(),
        call.settings,
        stream.settings,
        call.cost,
        1 / stream.cost,
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


def _final(
    model: bytes | Path, screened: dict[CpuSettings, float], cost: Callable[[CpuRunner], float]
) -> Timed:
    """The least cost, timed again among those that came near; all of them stay open meanwhile.

    The default is the best of the first library: a second one must pay for itself, with its import
    and its memory.
    """
    ranked = sorted(screened, key=screened.__getitem__)
    default = next(settings for settings in ranked if settings.backend == TWINS[0])
    near = [s for s in ranked if screened[s] <= _NEAR * screened[ranked[0]]][:_FINALISTS]
    if len(near) == 1:
        return Timed(near[0], screened[near[0]])
    with contextlib.ExitStack() as stack:
        runners = {s: stack.enter_context(CpuRunner(model, s)) for s in near}
        costs = contest(
            {s: functools.partial(cost, runner) for s, runner in runners.items()},
            default,
            gain=_GAIN,
            most_s=_FINAL_S,
        )
    winner, figure = next(iter(costs.items()))
    return Timed(winner, figure)
