"""Which layers stay float so that int8's noise, summed over the layers, keeps within a budget.

The noise of one layer reaches the answers about as large, relative to the signal, as it was at
the layer, and noises of different layers add up in power: so the sum over the layers estimates the
noise of the whole, before the whole is run. A limit per layer cannot: fifty layers at 37 dB leave
20 dB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def over_budget(
    noise: Mapping[int, float], added_cost: Mapping[int, float], least_db: float
) -> list[int]:
    """Layers to keep float, the most noise per cost first.

    Args:
        noise: noise over signal by layer.
        added_cost: what a layer costs more in float.
        least_db: signal over the noise that the rest may add up to; 0 sets no limit.
    """
    if least_db == 0:
        return []
    budget = 10 ** (-least_db / 10)
    worth = {layer: value / max(added_cost[layer], 1.0) for layer, value in noise.items()}
    ranked = sorted(noise, key=lambda layer: (-worth[layer], layer))
    left = math.fsum(noise.values())
    kept: list[int] = []
    for layer in ranked:
        if left <= budget:
            break
        kept.append(layer)
        left -= noise[layer]
    # Later ones may have made earlier ones needless: lower back those that fit, the costly first.
    for layer in sorted(kept, key=lambda layer: -added_cost[layer]):
        if left + noise[layer] <= budget:
            kept.remove(layer)
            left += noise[layer]
    return kept
