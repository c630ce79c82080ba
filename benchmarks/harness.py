"""The one harness of every benchmark: warm-up, interleaving, median and spread, JSON.

A *case* times our code and its peers in one process, in turn, round by round, so that a machine
whose speed drifts treats all alike. The ratio is taken round by round, and its median is quoted.
"""

from __future__ import annotations

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

OURS = "ours"


@dataclass
class Case:
    """One line of the table.

    Attributes:
        name: what is measured.
        candidates: callables by name; ``ours`` and any number of peers, all doing the same work.
        rounds: how often each is timed.
    """

    name: str
    candidates: Mapping[str, Callable[[], object]]
    rounds: int = 30


@dataclass
class Measured:
    """Milliseconds of every round, by candidate."""

    name: str
    times_ms: dict[str, NDArray[np.float64]] = field(default_factory=dict)

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
            if candidate != OURS:
                q1, q2, q3 = self.ratio(candidate)
                out["ratio"][candidate] = {"median": q2, "quartiles": [q1, q3]}
        return out


def measure(case: Case) -> Measured:
    """Time every candidate ``case.rounds`` times, in turn, after a warm-up of three rounds."""
    times: dict[str, list[float]] = {name: [] for name in case.candidates}
    for round_number in range(-3, case.rounds):
        for name, call in case.candidates.items():
            started = time.perf_counter()
            call()
            elapsed = (time.perf_counter() - started) * 1e3
            if round_number >= 0:
                times[name].append(elapsed)
    return Measured(case.name, {name: np.array(values) for name, values in times.items()})


def table(results: list[Measured]) -> str:
    """One line per peer: what, ours, peer, and how many times as fast ours is."""
    rows = [("what", "peer", "ours ms", "peer ms", "peer / ours", "quartiles")]
    for result in results:
        ours = float(np.median(result.times_ms[OURS]))
        for peer, times in result.times_ms.items():
            if peer == OURS:
                continue
            low, middle, high = result.ratio(peer)
            rows.append(
                (
                    result.name,
                    peer,
                    f"{ours:.3f}",
                    f"{np.median(times):.3f}",
                    f"{middle:.2f}×",
                    f"{low:.2f} … {high:.2f}",
                )
            )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows
    )


def machine() -> dict[str, Any]:
    """Processor, cores and versions, for the JSON."""
    packages = {}
    for name in ("trtconvert", "numpy", "onnxruntime", "opencv-python-headless", "pillow"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": packages,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor()
    return platform.machine()


def save(results: list[Measured], path: Path) -> None:
    """Write the results and the machine as JSON."""
    body = {"machine": machine(), "results": [r.to_json() for r in results]}
    path.write_text(json.dumps(body, indent=1) + "\n")
