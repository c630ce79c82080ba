"""Which nodes stay float so that int8's noise at the answers keeps within a budget.

Noises of different nodes are as good as independent, so their powers add up: the sum of what each
brings alone estimates what all bring together. A limit per node cannot: fifty nodes at 37 dB leave
20 dB.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

# Signal to noise of the raw answers, in decibels. A mask is as good as its pixels near the border,
# where the answers are small; a box counts as found while it overlaps by half.
_LEAST_SNR_DB = {"classify": 26.0, "segment": 27.0, "keypoints": 23.0}
_BOXES_SNR_DB = 22.0
# A map of centres is background but for a few cells, and most of its noise lies where nothing is.
_CENTRES_SNR_DB = 16.0
_CENTRES = frozenset({"centerface", "centernet"})
# Beyond that, float is spent on the answers while this share of all multiplications stays int8,
# and no further than this.
SPARE_SHARE, _SPARE_DB = 0.8, 34.0


def least_snr_db(task: str, head: str) -> float:
    """Signal to noise of the raw answers that a task and its head ask for, in decibels."""
    if head in _CENTRES:
        return _CENTRES_SNR_DB
    return _LEAST_SNR_DB.get(task, _BOXES_SNR_DB)


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
    ranked = _by_worth(noise, added_cost)
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


def spare(
    noise: Mapping[str, float],
    added_cost: Mapping[str, float],
    flops: Mapping[str, int],
    kept: Collection[str],
    most_flops: float,
) -> list[str]:
    """Further nodes to keep float, the most noise per cost first.

    Args:
        noise, added_cost: as of :func:`over_budget`.
        flops: of each node.
        kept: nodes that are float already.
        most_flops: that these and the further ones may have together.
    """
    left = math.fsum(value for node, value in noise.items() if node not in kept)
    used = sum(flops[node] for node in kept)
    found: list[str] = []
    for node in _by_worth(noise, added_cost):
        if left <= 10 ** (-_SPARE_DB / 10):
            break
        if node not in kept and used + flops[node] <= most_flops:
            found.append(node)
            left -= noise[node]
            used += flops[node]
    return found


def _by_worth(noise: Mapping[str, float], added_cost: Mapping[str, float]) -> list[str]:
    worth = {node: value / max(added_cost[node], 1.0) for node, value in noise.items()}
    return sorted(noise, key=lambda node: (-worth[node], node))
