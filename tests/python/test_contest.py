"""The contest that chooses how the CPU twin runs: what it must tell apart, and what it must not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from visionrt import contest as module
from visionrt.contest import LEAST_ROUNDS, MOST_ROUNDS, contest, wait_for_idle_threads

WAYS = ("own", "other", "third")


class Machine:
    """Costs of ways on a machine that drifts, and that something else visits now and then."""

    def __init__(self, seed: int, costs: dict[str, float], visits: float = 0.15) -> None:
        self._rng = np.random.default_rng(seed)
        self._costs = costs
        self._visits = visits
        self.calls = dict.fromkeys(costs, 0)
        self._speed = 1.0

    def ways(self) -> dict[str, Callable[[], float]]:
        return {name: (lambda name=name: self._one(name)) for name in self._costs}

    def _one(self, name: str) -> float:
        self.calls[name] += 1
        self._speed *= 1 + self._rng.normal(0, 0.01)  # 20 % and more over a contest
        visit = 1 + (self._rng.random() < self._visits) * self._rng.uniform(0.2, 2)
        return self._costs[name] * self._speed * visit * (1 + self._rng.normal(0, 0.01))


def no_rest() -> None:
    """Nothing spins."""


@pytest.mark.parametrize("seed", range(20))
def test_a_way_faster_by_a_twentieth_wins_whatever_the_machine_does(seed: int) -> None:
    machine = Machine(seed, {"own": 1.05, "other": 1.0, "third": 1.3})
    found = contest(machine.ways(), "own", gain=1.01, most_s=60, rest=no_rest)
    assert next(iter(found)) == "other"
    assert "third" not in found
    # What falls clearly behind costs no further time.
    assert machine.calls["third"] < MOST_ROUNDS


@pytest.mark.parametrize("seed", range(20))
def test_a_tie_goes_to_the_default(seed: int) -> None:
    machine = Machine(seed, {"other": 1.0, "own": 1.002})
    found = contest(machine.ways(), "own", gain=1.01, most_s=60, rest=no_rest)
    assert next(iter(found)) == "own"
    assert set(found) == {"own", "other"}


def test_one_great_outlier_a_round_does_not_decide() -> None:
    turn = 0

    def fast() -> float:
        nonlocal turn
        turn += 1
        return 50.0 if turn % 3 == 0 else 1.0

    found = contest({"own": lambda: 1.1, "other": fast}, "own", gain=1.01, most_s=60, rest=no_rest)
    assert found == {"other": 1.0, "own": 1.1} or list(found) == ["own"]


def test_no_round_begins_after_the_time_is_over() -> None:
    machine = Machine(0, {"own": 1.0, "other": 1.0}, visits=0)
    contest(machine.ways(), "own", gain=1.01, most_s=0, rest=no_rest)
    assert machine.calls == {"own": LEAST_ROUNDS, "other": LEAST_ROUNDS}


def test_every_way_begins_a_round_in_its_turn() -> None:
    begun: list[str] = []
    ways = {name: (lambda name=name: begun.append(name) or 1.0) for name in WAYS}  # type: ignore[func-returns-value]
    contest(ways, "own", gain=1.01, most_s=0, rest=no_rest)
    assert begun[: len(WAYS) ** 2 : len(WAYS)] == list(WAYS)


def test_a_rest_ends_when_threads_stop_spinning_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, spinning_s = 0.0, 0.04

    def sleep(seconds: float) -> None:
        nonlocal wall
        wall += seconds

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module.time, "perf_counter", lambda: wall)
    monkeypatch.setattr(module.time, "process_time", lambda: min(wall, spinning_s))
    wait_for_idle_threads()
    assert spinning_s <= wall < spinning_s + 0.015
    # Threads that never stop are not waited for without end.
    wall, spinning_s = 0.0, 1e9
    wait_for_idle_threads()
    assert wall == pytest.approx(0.1, abs=0.01)
