"""Why a node has the precision it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Decision(NamedTuple):
    """One node's precision and the rule that gave it.

    Attributes:
        node: name of the node, or of its first output where it has none.
        op_type: e.g. ``Conv``.
        precision: ``int8``, ``fp16``, ``fp32``, or ``integer`` for a node without float tensors.
        reason: a short sentence for people.
        follows: whether it only goes with what it reads, and could have another precision.
    """

    node: str
    op_type: str
    precision: str
    reason: str
    follows: bool = False


def count_precisions(decisions: Iterable[Decision]) -> dict[str, int]:
    """Nodes per precision, the most frequent first."""
    return dict(Counter(d.precision for d in decisions).most_common())
