"""The one harness of every benchmark: warm-up, interleaving, medians and quartiles.

A *case* times our code and its peers in one process, in turn, round by round, so that a machine
whose speed drifts treats all alike. The ratio is taken round by round, and its median is quoted.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visionrt import _core

OURS = "ours"
FLOOR = "floor"
_PACKAGES = (
    *("trtconvert", "numpy", "onnxruntime", "openvino", "opencv-python-headless", "pillow"),
    *("simplejpeg", "torch", "torchvision"),
)
_FLAGS = ("VISIONRT_", "OMP_", "OPENBLAS_", "ORT_")
_PLACES = ("VISIONRT_PEER_PYTHON", "VISIONRT_CACHE")  # paths, which say nothing of a figure


class OwnTime(NamedTuple):
    """What a candidate gives that was run and timed elsewhere: it counts, and the wait does not."""

    seconds: float


@dataclass
class Case:
    """One line of the table, or several with the same candidates.

    Attributes:
        name: what is measured; the same in every run, so that two files can be compared.
        candidates: callables by name; ``ours`` and any number of peers, all doing the same work.
        rounds: how often each is timed.
        targets: by peer, the ratio peer / ours that is aimed at.
        floor: what no code can be faster than, timed like a candidate: a copy of the bytes, or the
            engine alone.
        gap_us: where set, ours minus its first peer is aimed at so many microseconds at most.
        most_floors: where set, ours is aimed at so many times the floor at most.
        pause_s: before each timing, for candidates whose idle threads spin for a while and would
            take a core from the next one.
        warm_up: rounds before those that count.
        detail: what was chosen this time, as the settings of an engine.
        why: one line for a target that is not met: what bounds it, besides the floor.
        tried: one line for such a target: what was done about it.
    """

    name: str
    candidates: Mapping[str, Callable[[], object]]
    rounds: int = 30
    targets: Mapping[str, float] = field(default_factory=dict)
    floor: Callable[[], object] | None = None
    gap_us: float | None = None
    most_floors: float | None = None
    pause_s: float = 0.0
    warm_up: int = 3
    detail: str = ""
    why: str = ""
    tried: str = ""


@dataclass
class Measured:
    """Milliseconds of every round, by candidate; the rest is as of the case."""

    name: str
    times_ms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    gap_us: float | None = None
    most_floors: float | None = None
    detail: str = ""
    why: str = ""
    tried: str = ""

    @property
    def peers(self) -> list[str]:
        """The candidates that ours is compared with."""
        return [name for name in self.times_ms if name not in (OURS, FLOOR)]

    def median_ms(self, candidate: str) -> float:
        """Of a candidate."""
        return float(np.median(self.times_ms[candidate]))

    def floor_ratio(self) -> float | None:
        """Median of ours / floor, round by round; None without a floor."""
        if FLOOR not in self.times_ms:
            return None
        return quartiles(self.times_ms[OURS] / self.times_ms[FLOOR])[1]

    def gap(self) -> tuple[float, float, float]:
        """Quartiles of ours minus the first peer, round by round, microseconds."""
        return quartiles((self.times_ms[OURS] - self.times_ms[self.peers[0]]) * 1e3)

    def ratio(self, peer: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of peer / ours, round by round."""
        return quartiles(self.times_ms[peer] / self.times_ms[OURS])

    def to_json(self) -> dict[str, Any]:
        """Medians and quartiles."""
        out: dict[str, Any] = {"name": self.name, "detail": self.detail, "ms": {}, "ratio": {}}
        for candidate, times in self.times_ms.items():
            low, middle, high = quartiles(times)
            out["ms"][candidate] = {"median": middle, "quartiles": [low, high]}
            if candidate in self.peers:
                q1, q2, q3 = self.ratio(candidate)
                out["ratio"][candidate] = {"median": q2, "quartiles": [q1, q3]}
                if candidate in self.targets:
                    out["ratio"][candidate]["target"] = self.targets[candidate]
        if self.gap_us is not None:
            q1, q2, q3 = self.gap()
            out["gap_us"] = {"median": q2, "quartiles": [q1, q3], "target": self.gap_us}
        if (floor := self.floor_ratio()) is not None:
            out["times_the_floor"] = floor
        return out


def quartiles(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def pooled(runs: Sequence[Sequence[Measured]]) -> list[Measured]:
    """The rounds of every run together, by case."""
    by_name: dict[str, list[Measured]] = {}
    for run in runs:
        for measured in run:
            by_name.setdefault(measured.name, []).append(measured)
    out = []
    for parts in by_name.values():
        names = [n for n in parts[0].times_ms if all(n in part.times_ms for part in parts)]
        times = {name: np.concatenate([part.times_ms[name] for part in parts]) for name in names}
        detail = " | ".join(dict.fromkeys(part.detail for part in parts if part.detail))
        out.append(dataclasses.replace(parts[0], times_ms=times, detail=detail))
    return out


def measure(case: Case) -> Measured:
    """Time every candidate ``case.rounds`` times, in turn, after a warm-up.

    Each round begins with another candidate, so that none always follows the same one. Who follows
    a wait for another process is called once more before: so was who ran there.
    """
    candidates = dict(case.candidates)
    if case.floor is not None:
        candidates[FLOOR] = case.floor
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    has_waited = False
    for round_number in range(-case.warm_up, case.rounds):
        for name in order:
            time.sleep(case.pause_s)
            if has_waited:
                candidates[name]()
            started = time.perf_counter()
            result = candidates[name]()
            elapsed = time.perf_counter() - started
            has_waited = isinstance(result, OwnTime)
            if isinstance(result, OwnTime):
                elapsed = result.seconds
            if round_number >= 0:
                times[name].append(elapsed * 1e3)
        order.append(order.pop(0))
    arrays = {name: np.array(values) for name, values in times.items()}
    return Measured(
        case.name,
        arrays,
        case.targets,
        case.gap_us,
        case.most_floors,
        case.detail,
        case.why,
        case.tried,
    )


def machine() -> dict[str, Any]:
    """Processor, cores and versions, for the JSON."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "instruction_set": _core.cpu_level(),
        "environment": {
            k: v for k, v in os.environ.items() if k.startswith(_FLAGS) and k not in _PLACES
        },
        "packages": packages,
    }


def optional(module: str) -> Any | None:
    """A peer's module, or None where it is not installed or does not load."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.machine()
