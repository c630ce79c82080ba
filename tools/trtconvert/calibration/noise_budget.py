"""Which nodes stay float so that int8's noise at the answers keeps within a budget.

Noises of different nodes are as good as independent, so their powers add up: the sum of what each
brings alone estimates what all bring together. A limit per node cannot: fifty nodes at 37 dB leave
20 dB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

# A class is one decision per image, and wins by a margin. Of thousands of anchors or pixels, some
# always are near the threshold that decides.
_DENSE_TASKS = frozenset({"detect", "instances", "obb", "segment"})
_DENSE_SNR_DB, _SNR_DB = 31.0, 26.0


def least_snr_db(task: str) -> float:
    """Signal to noise of the raw answers that a task asks for, in decibels."""
    return _DENSE_SNR_DB if task in _DENSE_TASKS else _SNR_DB


def over_budget(
    noise: Mapping[str, float], added_cost: Mapping[str, float], least_db: float
) -> list[str]:
    """Nodes to keep float, the most noise per cost first.

    Args:
        noise: noise over signal of each node alone.
        added_cost: what a node costs more in float.
        least_db: signal over the noise that the rest may add up to; 0 sets no limit.
    """
    if least_db == 0:
        return []
    budget = 10 ** (-least_db / 10)
    worth = {node: value / max(added_cost[node], 1.0) for node, value in noise.items()}
    ranked = sorted(noise, key=lambda node: (-worth[node], node))
    left = math.fsum(noise.values())
    kept: list[str] = []
    for node in ranked:
        if left <= budget:
            break
        kept.append(node)
        left -= noise[node]
    # Later ones may have made earlier ones needless: lower back those that fit, the costly first.
    for node in sorted(kept, key=lambda node: -added_cost[node]):
        if left + noise[node] <= budget:
            kept.remove(node)
            left += noise[node]
    return kept
