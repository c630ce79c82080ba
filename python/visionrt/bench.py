"""Times a model: latency percentiles, throughput and where the time goes.

A *call* is one ``model(batch)``. Two models are compared interleaved, call by call, so that a
machine whose speed drifts treats both alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.errors import UsageError
from visionrt.model import Model
from visionrt.results import Result

PERCENTILES = (90.0, 95.0, 99.0)


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        warmup_ms: calls that are not counted, for this long.
        duration_s: calls that are counted, for this long at least.
        iterations: counted calls at least.
        callers: threads that call at the same time.
    """

    warmup_ms: float = 500.0
    duration_s: float = 3.0
    iterations: int = 10
    callers: int = 1

    def __post_init__(self) -> None:
        for key, least in (("warmup_ms", 0), ("duration_s", 0), ("iterations", 1), ("callers", 1)):
            if getattr(self, key) < least:
                raise UsageError(
                    f"{key} of at least {least}",
                    got=str(getattr(self, key)),
                    fix="Give a larger number.",
                )


@dataclass(frozen=True)
class Timing:
    """The figures of one model; milliseconds, except ``images_per_second``."""

    calls: int
    batch: int
    callers: int
    latencies_ms: NDArray[np.float64]
    stages_ms: dict[str, float]
    images_per_second: float

    def percentile(self, q: float) -> float:
        """Latency that ``q`` percent of the calls stay at or below, ms (linear interpolation)."""
        return float(np.percentile(self.latencies_ms, q))

    def to_json(self, percentiles: Sequence[float] = PERCENTILES) -> dict[str, Any]:
        """The figures as one object."""
        ms = self.latencies_ms
        latency = {"min": float(ms.min()), "mean": float(ms.mean()), "median": self.percentile(50)}
        latency |= {f"p{q:g}": self.percentile(q) for q in percentiles}
        latency["max"] = float(ms.max())
        return {
            "calls": self.calls,
            "batch": self.batch,
            "callers": self.callers,
            "latency_ms": latency,
            "stages_ms": self.stages_ms,
            "images_per_second": self.images_per_second,
        }


def measure(model: Model, batch: Sequence[NDArray[np.uint8]], plan: Plan) -> Timing:
    """Time one model on one batch of images, again and again. Blocks for about the plan's time."""
    frames = list(batch)
    _warm_up([model], frames, plan)
    recorder = _Recorder()
    started = time.perf_counter()
    if plan.callers == 1:
        _until_done(plan, lambda: recorder.call(model, frames))
        recorders = [recorder]
    else:
        # Each caller keeps its own record; they are joined after the clock has stopped.
        recorders = [_Recorder() for _ in range(plan.callers)]
        with ThreadPoolExecutor(plan.callers) as pool:
            jobs = [
                pool.submit(_until_done, plan, lambda r=r: r.call(model, frames))  # type: ignore[misc]
                for r in recorders
            ]
            for job in jobs:
                job.result()
    elapsed = time.perf_counter() - started
    return _timing(recorders, len(frames), plan.callers, elapsed)


def compare(
    ours: Model, other: Model, batch: Sequence[NDArray[np.uint8]], plan: Plan
) -> tuple[Timing, Timing, NDArray[np.float64]]:
    """Time two models in turn; returns both timings and the ratios other / ours, call by call."""
    frames = list(batch)
    _warm_up([ours, other], frames, plan)
    first, second = _Recorder(), _Recorder()

    def turn() -> None:
        first.call(ours, frames)
        second.call(other, frames)

    _until_done(plan, turn)
    timings = [_timing([r], len(frames), 1, sum(r.latencies_ms) / 1e3) for r in (first, second)]
    ratios = timings[1].latencies_ms / timings[0].latencies_ms
    return timings[0], timings[1], ratios


class _Recorder:
    def __init__(self) -> None:
        self.latencies_ms: list[float] = []
        self.stages_ms: dict[str, list[float]] = {}

    def call(self, model: Model, frames: list[NDArray[np.uint8]]) -> None:
        started = time.perf_counter()
        results: list[Result] = model(frames)
        self.latencies_ms.append((time.perf_counter() - started) * 1e3)
        for stage in results[0].speed:
            total = sum(result.speed[stage] for result in results)
            self.stages_ms.setdefault(stage, []).append(total)


def _until_done(plan: Plan, turn: Callable[[], None]) -> None:
    end = time.perf_counter() + plan.duration_s
    done = 0
    while done < plan.iterations or time.perf_counter() < end:
        turn()
        done += 1


def _warm_up(models: Sequence[Model], frames: list[NDArray[np.uint8]], plan: Plan) -> None:
    end = time.perf_counter() + plan.warmup_ms / 1e3
    while True:
        for model in models:
            model(frames)
        if time.perf_counter() >= end:
            return


def _timing(recorders: Sequence[_Recorder], batch: int, callers: int, elapsed_s: float) -> Timing:
    latencies = np.concatenate([r.latencies_ms for r in recorders])
    stages: dict[str, float] = {}
    for stage in recorders[0].stages_ms:
        stages[stage] = float(np.median(np.concatenate([r.stages_ms[stage] for r in recorders])))
    return Timing(
        calls=len(latencies),
        batch=batch,
        callers=callers,
        latencies_ms=latencies,
        stages_ms=stages,
        images_per_second=len(latencies) * batch / elapsed_s,
    )
