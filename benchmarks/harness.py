"""The one harness of every benchmark: warm-up, interleaving, median and spread, JSON.

A *case* times our code and its peers in one process, in turn, round by round, so that a machine
whose speed drifts treats all alike. The ratio is taken round by round, and its median is quoted.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


@dataclass
class Case:
    """One line of the table.

    Attributes:
        name: what is measured.
        candidates: callables by name; ``ours`` and any number of peers, all doing the same work.
        rounds: how often each is timed.
        targets: by peer, the ratio peer / ours that is aimed at.
        floor: what no code can be faster than, timed like a candidate: a copy of the bytes, or the
            engine alone.
        gap_us: where set, ours minus its first peer is aimed at so many microseconds at most.
        pause_s: before each timing, for candidates whose idle threads spin for a while and would
            take a core from the next one.
        warm_up: rounds before those that count.
    """

    name: str
    candidates: Mapping[str, Callable[[], object]]
    rounds: int = 30
    targets: Mapping[str, float] = field(default_factory=dict)
    floor: Callable[[], object] | None = None
    gap_us: float | None = None
    pause_s: float = 0.0
    warm_up: int = 3


@dataclass
class Measured:
    """Milliseconds of every round, by candidate."""

    name: str
    times_ms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    targets: Mapping[str, float] = field(default_factory=dict)
    gap_us: float | None = None

    @property
    def peers(self) -> list[str]:
        """The candidates that ours is compared with."""
        return [name for name in self.times_ms if name not in (OURS, FLOOR)]

    def floor_ratio(self) -> float | None:
        """Median of ours / floor, round by round; None without a floor."""
        if FLOOR not in self.times_ms:
            return None
        return float(np.median(self.times_ms[OURS] / self.times_ms[FLOOR]))

    def gap(self) -> tuple[float, float, float]:
        """Quartiles of ours minus the first peer, round by round, microseconds."""
        gaps = (self.times_ms[OURS] - self.times_ms[self.peers[0]]) * 1e3
        low, middle, high = np.percentile(gaps, [25, 50, 75])
        return float(low), float(middle), float(high)

    def ratio(self, peer: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of peer / ours, round by round."""
        low, middle, high = np.percentile(self.times_ms[peer] / self.times_ms[OURS], [25, 50, 75])
        return float(low), float(middle), float(high)

    def to_json(self) -> dict[str, Any]:
        """Medians and quartiles."""
        out: dict[str, Any] = {"name": self.name, "ms": {}, "ratio": {}}
        for candidate, times in self.times_ms.items():
            low, middle, high = np.percentile(times, [25, 50, 75])
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


def measure(case: Case) -> Measured:
    """Time every candidate ``case.rounds`` times, in turn, after a warm-up.

    Each round begins with another candidate, so that none always follows the same one.
    """
    candidates = dict(case.candidates)
    if case.floor is not None:
        candidates[FLOOR] = case.floor
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates)
    for round_number in range(-case.warm_up, case.rounds):
        for name in order:
            time.sleep(case.pause_s)
            started = time.perf_counter()
            candidates[name]()
            elapsed = (time.perf_counter() - started) * 1e3
            if round_number >= 0:
                times[name].append(elapsed)
        order.append(order.pop(0))
    arrays = {name: np.array(values) for name, values in times.items()}
    return Measured(case.name, arrays, case.targets, case.gap_us)


def table(results: list[Measured]) -> str:
    """One line per peer: what, ours, peer, the ratio and its target, the floor and the distance.

    A target is *missed* where not even the better quartile reaches it, and *near* where that does.
    """
    rows = [("what", "peer", "ours ms", "peer ms", "ratio", "quartiles", "target", "ours / floor")]
    for result in results:
        ours = float(np.median(result.times_ms[OURS]))
        floor = result.floor_ratio()
        distance = "" if floor is None else f"{floor:.2f}"
        for peer in result.peers:
            low, middle, high = result.ratio(peer)
            target = result.targets.get(peer)
            aim = "" if target is None else f"{target:.3g}×{_verdict(middle, high, target)}"
            rows.append(
                (
                    result.name,
                    peer,
                    f"{ours:.3f}",
                    f"{np.median(result.times_ms[peer]):.3f}",
                    f"{middle:.2f}×",
                    f"{low:.2f} … {high:.2f}",
                    aim,
                    distance,
                )
            )
        if result.gap_us is not None:
            low, middle, high = result.gap()
            spread = f"{low:.0f} … {high:.0f}"
            aim = f"{result.gap_us:g} µs{_verdict(-middle, -low, -result.gap_us)}"
            rows.append(("  ours - peer", "", "", "", f"{middle:.0f} µs", spread, aim, ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _verdict(median: float, best_quartile: float, target: float) -> str:
    """Nothing, where the median is at or above the target; else whether the spread reaches it."""
    if median >= target:
        return ""
    return " near" if best_quartile >= target else " missed"


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
        "environment": {k: v for k, v in os.environ.items() if k.startswith(_FLAGS)},
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


def save(results: list[Measured], path: Path, memory: Mapping[str, Any]) -> None:
    """Write the results, the growth of memory and the machine as JSON."""
    body = {
        "machine": machine(),
        "results": [r.to_json() for r in results],
        "memory": dict(memory),
    }
    path.write_text(json.dumps(body, indent=1) + "\n")
