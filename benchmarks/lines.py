"""What ``make bench`` prints and writes: a line per target, over one run or several."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness import FLOOR, OURS, Measured, machine, pooled
from visionrt.atomic import write_bytes

MET, NEAR, MISSED = "met", "near", "missed"


@dataclass(frozen=True)
class Line:
    """One figure and what is aimed at.

    Attributes:
        what, peer: what is measured, and against what.
        unit: of the figure: ``×``, ``µs`` or ``MiB``.
        per_run: the figure of each run.
        quartiles: of the rounds of all runs; the figure itself where there were no rounds.
        target: None where nothing is aimed at.
        is_least: whether the target is a least figure, not a greatest one.
        ours_ms, peer_ms, floor_ms: medians.
        detail, why, tried: as of the case.
    """

    what: str
    peer: str
    unit: str
    per_run: tuple[float, ...]
    quartiles: tuple[float, float]
    target: float | None = None
    is_least: bool = True
    ours_ms: float | None = None
    peer_ms: float | None = None
    floor_ms: float | None = None
    detail: str = ""
    why: str = ""
    tried: str = ""

    @property
    def figure(self) -> float:
        """The median of the runs."""
        return float(np.median(self.per_run))

    @property
    def spread(self) -> tuple[float, float]:
        """Least and greatest of the runs; of one run, the quartiles of its rounds."""
        if len(self.per_run) > 1:
            return min(self.per_run), max(self.per_run)
        return self.quartiles

    @property
    def verdict(self) -> str:
        """Whether the target is met, or is not but lies within the spread; empty without one."""
        if self.target is None:
            return ""
        if self._reaches(self.figure):
            return MET
        return NEAR if any(map(self._reaches, self.spread)) else MISSED

    @property
    def reach(self) -> float | None:
        """The ratio that the floor alone would have to the peer; None where that says nothing."""
        if not self.floor_ms or self.peer_ms is None or self.unit != "×" or not self.is_least:
            return None
        return self.peer_ms / self.floor_ms

    @property
    def reason(self) -> str:
        """Why the target is not met, in one line; empty where it is."""
        if self.verdict in ("", MET):
            return ""
        found = []
        if self.reach is not None and self.target is not None and self.reach < self.target:
            found.append(f"the floor alone would have {self.reach:.2f}×")
        if self.verdict == NEAR:
            found.append("the spread reaches it")
        found += [self.why] if self.why else []
        return "; ".join(found) or "no analysis of a floor is written for this line"

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "what": self.what,
            "peer": self.peer,
            "unit": self.unit,
            "median": self.figure,
            "per_run": list(self.per_run),
            "spread": list(self.spread),
            "target": self.target,
            "at": "least" if self.is_least else "most",
            "verdict": self.verdict,
            "ours_ms": self.ours_ms,
            "peer_ms": self.peer_ms,
            "floor_ms": self.floor_ms,
            "times_the_floor": self.ours_ms / self.floor_ms
            if self.ours_ms and self.floor_ms
            else None,
            "reach_of_the_floor": self.reach,
            "detail": self.detail,
            "reason": self.reason,
            "tried": self.tried if self.reason else "",
        }

    def _reaches(self, figure: float) -> bool:
        assert self.target is not None
        return figure >= self.target if self.is_least else figure <= self.target


def lines_of(runs: Sequence[Sequence[Measured]]) -> list[Line]:
    """A line per peer, gap and share of the floor; ``runs`` holds the cases of each run."""
    out = []
    for case in pooled(runs):
        parts = [m for run in runs for m in run if m.name == case.name]
        floor = case.floor_ratio()
        shared = {
            "ours_ms": case.median_ms(OURS),
            "floor_ms": None if floor is None else case.median_ms(FLOOR),
            "detail": case.detail,
            "why": case.why,
            "tried": case.tried,
        }
        for peer in case.peers:
            low, _, high = case.ratio(peer)
            figures = tuple(part.ratio(peer)[1] for part in parts)
            target, peer_ms = case.targets.get(peer), case.median_ms(peer)
            out.append(
                Line(case.name, peer, "×", figures, (low, high), target, peer_ms=peer_ms, **shared)
            )
        if case.gap_us is not None:
            low, _, high = case.gap()
            figures = tuple(part.gap()[1] for part in parts)
            name = f"{case.name}: beyond that"
            out.append(
                Line(name, case.peers[0], "µs", figures, (low, high), case.gap_us, False, **shared)
            )
        if case.most_floors is not None and floor is not None:
            figures = tuple(part.floor_ratio() or 0.0 for part in parts)
            ratios = np.percentile(case.times_ms[OURS] / case.times_ms[FLOOR], [25, 75])
            spread = (float(ratios[0]), float(ratios[1]))
            name = f"{case.name}: times its floor"
            out.append(Line(name, FLOOR, "×", figures, spread, case.most_floors, False, **shared))
    return out


def table(lines: Sequence[Line]) -> str:
    """What, against what, both times, the figure and its spread, the target, and the floor."""
    several = any(len(line.per_run) > 1 for line in lines)
    spread = "of the runs" if several else "quartiles"
    rows = [("what", "peer", "ours ms", "peer ms", "figure", spread, "target", "floor", "× floor")]
    for line in lines:
        low, high = line.spread
        digits = 2 if line.unit == "×" else 1 if line.unit == "MiB" else 0
        aim = ""
        if line.target is not None:
            aim = f"{'≥' if line.is_least else '≤'} {line.target:.3g} {line.verdict}"
        ours, floor = line.ours_ms, line.floor_ms
        rows.append(
            (
                f"{line.what} ({line.detail})" if line.detail else line.what,
                line.peer,
                _ms(ours),
                _ms(line.peer_ms),
                f"{line.figure:.{digits}f} {line.unit}",
                f"{low:.{digits}f} … {high:.{digits}f}",
                aim,
                _ms(floor),
                f"{ours / floor:.2f}" if ours and floor else "",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def shortfalls(lines: Sequence[Line]) -> str:
    """Every line that is short of its target, with its reason and what was tried."""
    aimed = [line for line in lines if line.target is not None]
    short = [line for line in aimed if line.verdict != MET]
    out = [f"{len(aimed) - len(short)} of {len(aimed)} targets are met"]
    for line in short:
        digits = 2 if line.unit == "×" else 0
        tried = f" Tried: {line.tried}." if line.tried else ""
        out.append(
            f"{line.verdict}: {line.what}, {line.peer}: {line.figure:.{digits}f} {line.unit}, "
            f"{'at least' if line.is_least else 'at most'} {line.target:.3g} is aimed at: "
            f"{line.reason}.{tried}"
        )
    return "\n".join(out)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def save(
    runs: Sequence[Sequence[Measured]],
    lines: Sequence[Line],
    path: Path,
    *,
    memory: Mapping[str, Any],
    left_out: Mapping[str, str],
    peers: Mapping[str, str],
) -> None:
    """Write the lines, the figures of each case, the memory and the machine as JSON.

    Args:
        runs, lines: what was measured, and :func:`lines_of` it.
        path: replaced at once.
        memory: images predicted, and KiB grown in each run.
        left_out: peers that were not measured, and why.
        peers: versions of packages in other Pythons.
    """
    body = {
        "machine": machine(),
        "runs": len(runs),
        "lines": [line.to_json() for line in lines],
        "results": [measured.to_json() for measured in pooled(runs)],
        "memory": dict(memory),
        "left_out": dict(left_out),
        "peers_elsewhere": dict(peers),
    }
    text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())
