"""Finds a cheap set of suspects that must be raised, in few evaluations.

Rules:

1. Suspects come ranked, the one most worth raising first. A prefix of the ranking is a candidate.
2. Bisection over the length of the prefix. Whether a prefix holds is no monotone function of its
   length, so the result is the shortest prefix *that was seen to hold*, and no other is returned.
3. Then what is left of the budget goes into lowering suspects back: the last of the prefix alone
   is tried (a single culprit, wherever the ranking put it), then runs of half, a quarter, ... of
   the prefix, the least worth raising first; a run stays lowered where the rest still holds.
4. No set is evaluated twice. The budget is ``2 * log2(n) + 8`` evaluations, the first two of
   which (nothing raised, everything raised) the caller may have made already.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def budget(suspects: int) -> int:
    """Evaluations that a search among so many suspects may take."""
    return math.floor(2 * math.log2(max(suspects, 1))) + 8


class Oracle:
    """Counts and remembers evaluations.

    Args:
        holds: whether the answers hold with this set raised; called once per set.
    """

    def __init__(self, holds: Callable[[frozenset[str]], bool]) -> None:
        self._holds = holds
        self._known: dict[frozenset[str], bool] = {}

    @property
    def evaluations(self) -> int:
        """Sets that were evaluated."""
        return len(self._known)

    def __call__(self, raised: frozenset[str]) -> bool:
        """Whether the set holds."""
        if raised not in self._known:
            self._known[raised] = self._holds(raised)
        return self._known[raised]


def fewest(ranked: Sequence[str], oracle: Oracle, most: int | None = None) -> list[str] | None:
    """Suspects to raise, in the order of the ranking; None where even all of them do not help.

    Args:
        ranked: without repetition, the one most worth raising first.
        oracle: what decides; sets that it knows cost nothing.
        most: evaluations in all, those made before included; None means :func:`budget`.
    """
    most = budget(len(ranked)) if most is None else most
    if oracle(frozenset()):
        return []
    if not ranked or not oracle(frozenset(ranked)):
        return None
    low, high = 0, len(ranked)
    while high - low > 1 and oracle.evaluations < most:
        middle = (low + high) // 2
        if oracle(frozenset(ranked[:middle])):
            high = middle
        else:
            low = middle
    return _lowered(list(ranked[:high]), oracle, most)


def _lowered(raised: list[str], oracle: Oracle, most: int) -> list[str]:
    if len(raised) > 1 and oracle.evaluations < most and oracle(frozenset(raised[-1:])):
        return raised[-1:]
    size = len(raised) // 2
    while size:
        end = len(raised)
        while end > 0:
            if oracle.evaluations >= most:
                return raised
            start = max(0, end - size)
            rest = raised[:start] + raised[end:]
            if rest and oracle(frozenset(rest)):
                raised = rest
            end = start
        size //= 2
    return raised
