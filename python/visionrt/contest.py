"""Which of a few ways is fastest, told from noise: in turn, round by round, until it is clear."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

LEAST_ROUNDS = 8
MOST_ROUNDS = 24
# Behind by so much in three rounds of four, a way cannot come out first.
_BEHIND = 1.02
# Threads of ONNX Runtime were seen to spin for 40 ms after a run, those of OpenVINO for 1 ms.
_REST_STEP_S = 0.005
_MOST_REST_S = 0.1
_AT_REST = 0.2

Way = TypeVar("Way", bound=Hashable)


def contest(
    ways: Mapping[Way, Callable[[], float]],
    default: Way,
    *,
    gain: float,
    most_s: float,
    rest: Callable[[], None] | None = None,
) -> dict[Way, float]:
    """Time each way once a round; those that fall clearly behind drop out. Blocks.

    A round begins with another way each time, so that none always follows the same one. What is
    compared is the ratio within a round: a machine whose speed drifts treats all alike.

    Args:
        ways: callables that give their own cost, in any unit that is less for a faster way.
        default: one of ``ways``; another takes its place where it costs less by the factor
            ``gain`` in the median round, and no more in three rounds of four.
        most_s: no round begins later than this, once there were ``LEAST_ROUNDS``.
        rest: called before each timing; default: :func:`wait_for_idle_threads`.

    Returns:
        The median cost of each way that was not dropped, the winner first.
    """
    costs: dict[Way, list[float]] = {way: [] for way in ways}
    order = list(ways)
    end = time.perf_counter() + most_s
    for done in range(1, MOST_ROUNDS + 1):
        for way in order:
            (rest or wait_for_idle_threads)()
            costs[way].append(ways[way]())
        order.append(order.pop(0))
        if done < LEAST_ROUNDS:
            continue
        leader = _leader({way: costs[way] for way in order})
        order = [way for way in order if _quartiles(costs, way, leader)[0] < _BEHIND]
        if len(order) == 1 or time.perf_counter() > end:
            break
    left = {way: costs[way] for way in order}
    winner = _leader(left)
    if default in left and winner != default:
        low, middle = _quartiles(costs, default, winner)
        if middle < gain or low < 1:
            winner = default
    ranked = sorted(left, key=lambda way: (way != winner, float(np.median(left[way]))))
    return {way: float(np.median(left[way])) for way in ranked}


def wait_for_idle_threads() -> None:
    """Until the threads that earlier runs left spinning have stopped, but not for long."""
    end = time.perf_counter() + _MOST_REST_S
    while time.perf_counter() < end:
        started, used = time.perf_counter(), time.process_time()
        time.sleep(_REST_STEP_S)
        if time.process_time() - used < _AT_REST * (time.perf_counter() - started):
            return


def _leader(costs: Mapping[Way, list[float]]) -> Way:
    """The way that is least in the median round, as a share of the round's mean."""
    table = np.array(list(costs.values()))
    shares = np.median(table / table.mean(axis=0), axis=1)
    return list(costs)[int(shares.argmin())]


def _quartiles(costs: Mapping[Way, list[float]], way: Way, leader: Way) -> tuple[float, float]:
    """Lower quartile and median of the cost of ``way`` over that of ``leader``, by round."""
    low, middle = np.percentile(np.array(costs[way]) / np.array(costs[leader]), [25, 50])
    return float(low), float(middle)
