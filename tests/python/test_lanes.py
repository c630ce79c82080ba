"""Lanes: one caller each, without a lock on the way, and an end that waits for every one."""

from __future__ import annotations

import threading
import time

import pytest

from visionrt.errors import UsageError
from visionrt.lanes import Lane, LanePool

THREADS = 6


def pool() -> LanePool:
    return LanePool((2, 3), "float32")


def test_a_lane_is_used_again_and_made_only_when_all_are_busy() -> None:
    lanes = pool()
    first = lanes.take()
    second = lanes.take()
    assert first is not second
    lanes.give_back(first)
    assert lanes.take() is first
    assert first.first.shape == (1, 3)
    first.tensor[0, 0] = 7
    assert first.first[0, 0] == 7


def test_threads_never_share_a_lane_and_close_waits_for_them() -> None:
    lanes = pool()
    owners: dict[int, int] = {}
    shared: list[int] = []
    used: dict[int, Lane] = {}
    in_use = [0] * THREADS
    start = threading.Barrier(THREADS + 1)

    def work(index: int) -> None:
        start.wait()
        while True:
            try:
                lane = lanes.take()
            except UsageError:
                return
            in_use[index] = 1
            used[id(lane)] = lane
            if owners.setdefault(id(lane), index) != index:
                shared.append(index)
            time.sleep(0)  # others may run
            owners.pop(id(lane))
            in_use[index] = 0
            lanes.give_back(lane)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    time.sleep(0.2)
    lanes.close()
    assert sum(in_use) == 0
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert shared == []
    assert 1 <= len(used) <= THREADS
    with pytest.raises(UsageError, match="closed"):
        lanes.take()
    lanes.close()


def test_close_waits_for_a_lane_that_is_out() -> None:
    lanes = pool()
    lane = lanes.take()
    closing = threading.Thread(target=lanes.close)
    closing.start()
    time.sleep(0.05)
    assert closing.is_alive()
    with pytest.raises(UsageError):
        lanes.take()
    lanes.give_back(lane)
    closing.join(10)
    assert not closing.is_alive()
