"""A model's raw answers, and how much noise there is in them.

Raw answers are what the last convolutions and products write: behind a Softmax or an argmax every
small error reads 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtconvert.graph_view import GraphView
from trtconvert.passes.half_rules import FLOAT
from trtconvert.passes.placement import INT8_OPS
from visionrt.recipe import Recipe

# Head options that name the output which says what is there, where others say where it lies.
_SCORES = ("scores", "logits", "heatmap")
# A box counts as found while it overlaps by half; its score decides whether it is found at all.
_PLACE_WEIGHT = 0.1
# Positions of a map that make a mean.
_ENOUGH = 16


def raw_answers(view: GraphView) -> list[str]:
    """What the last convolutions and matrix products write, or the graph's float outputs."""
    found: list[str] = []
    followed: set[str] = set()
    for node in reversed(view.model.graph.node):
        is_linear = node.op_type in (*INT8_OPS, "ConvTranspose")
        if is_linear and not followed.intersection(node.output):
            found.insert(0, node.output[0])
        if is_linear or followed.intersection(node.output):
            followed.update(node.input)
    return found or [name for name in view.outputs if view.elem_type.get(name) == FLOAT]


def answer_weights(view: GraphView, recipe: Recipe) -> dict[str, float]:
    """How much a position of each raw answer counts, by name.

    1 where its head has no output for scores alone; else 1 for what ends in that output, and a
    tenth for boxes, offsets and landmarks.
    """
    answers = raw_answers(view)
    named = {recipe.head_options.get(key) for key in _SCORES}
    scores = named.intersection(view.outputs)
    if not scores:
        return dict.fromkeys(answers, 1.0)
    needed = set(scores)
    for node in reversed(view.model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
    # An answer before which another lies is none, so what scores need is only theirs.
    return {name: 1.0 if name in needed else _PLACE_WEIGHT for name in answers}


def relative_noise(
    clean: Mapping[str, NDArray[Any]],
    noisy: Mapping[str, NDArray[Any]],
    weights: Mapping[str, float],
) -> float:
    """Power of the difference over that of what varies, the weighted mean of all answers.

    Each answer counts by its number of positions, so many decisions hang on it, and its weight.
    Where there are enough of them, a map's mean per channel is no signal: the logits of a
    background class are large everywhere.

    Args:
        clean: all answers.
        noisy: those that may differ; the others are clean.
        weights: of :func:`answer_weights`.
    """
    shares = answer_shares({name: positions(answer) for name, answer in clean.items()}, weights)
    return sum(
        shares[name] * noise_share(difference_power(clean[name], answer), signal_power(clean[name]))
        for name, answer in noisy.items()
    )


def answer_shares(counts: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, float]:
    """What each answer counts for in the mean of all; see :func:`relative_noise`.

    Args:
        counts: positions of all answers.
        weights: of :func:`answer_weights`.
    """
    weighted = {name: weights[name] * count for name, count in counts.items()}
    total = math.fsum(weighted.values())
    return {name: value / total for name, value in weighted.items()}


def noise_share(noise: Any, signal: Any) -> float:
    """Noise over signal: infinite where it is not finite, 1 where there is no signal."""
    value, power = float(noise), float(signal)
    if not np.isfinite(value):
        return float("inf")
    return value / power if power > 0 else float(value > 0)


def positions(answer: NDArray[Any]) -> int:
    """Of a map ``[n, c, ...]``: the product of its sizes behind the channels."""
    return math.prod(answer.shape[2:])


def signal_power(clean: NDArray[Any]) -> float:
    """Power of what varies in an answer; see :func:`relative_noise`."""
    exact = clean.astype(np.float64)
    is_map = positions(exact) >= _ENOUGH
    mean = exact.mean(axis=tuple(range(2, exact.ndim)), keepdims=True) if is_map else exact.mean()
    return float(np.square(exact - mean).sum())


def difference_power(clean: NDArray[Any], noisy: NDArray[Any]) -> float:
    """Sum of squares of the difference of two tensors."""
    # A difference of float32 values that are near each other is exact; its squares may overflow.
    return float(np.square(noisy - clean, dtype=np.float64).sum())
