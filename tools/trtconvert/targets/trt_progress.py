"""Turns TensorRT's nested build phases into one fraction that grows from 0 to 1."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from trtconvert.targets.base import ProgressCallback


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTracker:
    """The fraction done of a tree of phases. Not thread-safe: its owner holds a lock.

    A phase's running child fills the share of the parent's current step. The fraction never
    falls, although phases of one name are entered more than once.
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._best = 0.0

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of ``steps`` steps begins inside ``parent``."""
        self._phases[name] = _Phase(parent if parent in self._phases else None, max(steps, 1))

    def step(self, name: str, step: int) -> None:
        """Step number ``step``, from 0, of a phase is over."""
        phase = self._phases.get(name)
        if phase is not None:
            phase.done = min(step + 1, phase.steps)

    def finish(self, name: str) -> None:
        """A phase is over."""
        self._phases.pop(name, None)

    def fraction(self) -> float:
        """0…1; the mean over the outermost phases."""
        roots = [n for n, p in self._phases.items() if p.parent is None]
        if roots:
            now = sum(self._fraction_of(n) for n in roots) / len(roots)
            self._best = max(self._best, min(now, 1.0))
        return self._best

    def _fraction_of(self, name: str) -> float:
        phase = self._phases[name]
        inside = [self._fraction_of(n) for n, p in self._phases.items() if p.parent == name]
        current = max(inside, default=0.0)
        return min((phase.done + current) / phase.steps, 1.0)


@dataclass
class Outcome:
    """Why a build was stopped from outside, if it was."""

    cancelled: bool = False
    error: BaseException | None = None


def progress_monitor(trt: Any, progress: ProgressCallback | None) -> tuple[Any, Outcome]:
    """An ``IProgressMonitor`` that reports to ``progress``, and what became of it.

    TensorRT swallows an exception from a monitor and stops the build as if it had been
    cancelled, so it is kept in the outcome for the caller to raise.
    """
    tracker, outcome, lock = PhaseTracker(), Outcome(), threading.Lock()

    def report(name: str) -> bool:
        if outcome.cancelled or outcome.error is not None:
            return False
        if progress is None:
            return True
        try:
            outcome.cancelled = not progress(tracker.fraction(), name)
        except BaseException as error:  # noqa: BLE001 - raised again by build_plan
            outcome.error = error
        return not outcome.cancelled and outcome.error is None

    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            with lock:
                tracker.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            with lock:
                tracker.step(phase_name, step)
                return report(phase_name)

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                tracker.finish(phase_name)

    return _Monitor(), outcome
