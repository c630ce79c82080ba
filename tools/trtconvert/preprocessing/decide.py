"""Chooses a field's value by paired scores, says how sure that is, or that it is not to be told.

Values are compared image by image, so that the images' own difficulty cancels. The best-scoring
value is taken, or the usual one where the best is not better beyond chance. Either way the loss to
every other value, at its upper 95 % bound, must be below a margin: what cannot be told apart may be
chosen freely only where the choice does not matter. Otherwise the user is asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Most that a choice may lose: in the logarithm of the right class's probability (a fifth), or in
# steadiness.
MARGINS = {True: 0.2, False: 0.03}
_ONE_SIDED_95 = 1.645


@dataclass(frozen=True)
class Decision:
    """A field's value.

    Attributes:
        value: a key of the scores.
        confidence: probability that no other value is better by more than the margin, 0…1.
        reason: for people, with figures.
        rivals: values that fit as well and matter; the user must choose. Empty when decided.
    """

    value: str
    confidence: float
    reason: str
    rivals: tuple[str, ...] = ()


def decide(
    scores: Mapping[str, NDArray[np.float64]], *, usual: str | None, labelled: bool
) -> Decision:
    """The value to take.

    Args:
        scores: float64 ``[images]`` by value, of the same images; at least one.
        usual: the value to prefer where nothing speaks against it.
        labelled: whether scores are logarithms of probabilities, not steadiness.
    """
    means = {value: float(row.mean()) for value, row in scores.items()}
    leader = max(means, key=means.__getitem__)
    images = len(scores[leader])
    what = "log-probability of the right class" if labelled else "steadiness"
    if len(scores) == 1:
        reason = f"all else is behind beyond doubt ({what} on {images} images)"
        return Decision(leader, 1.0, reason)
    value, margin = leader, MARGINS[labelled]
    if usual is not None and usual in scores and usual != leader:
        gain, error = _gain(scores[leader], scores[usual])
        within_chance = gain < _ONE_SIDED_95 * error
        if within_chance and not _rivals(scores, usual, margin):
            value = usual
    rivals = _rivals(scores, value, margin)
    other = max((v for v in means if v != value), key=means.__getitem__)
    gain, error = _gain(scores[value], scores[other])
    confidence = min(_at_most(_gain(row, scores[value]), margin) for row in scores.values())
    reason = f"{what} {means[value]:.3f}, next {other} {means[other]:.3f}, on {images} images"
    if gain < _ONE_SIDED_95 * error:
        reason += f"; within chance, at most {_ONE_SIDED_95 * error - gain:.2f} to lose"
    return Decision(value, confidence, reason, rivals)


def _rivals(
    scores: Mapping[str, NDArray[np.float64]], value: str, margin: float
) -> tuple[str, ...]:
    """Values that may be better by more than the margin, at the upper bound."""
    found = []
    for other, row in scores.items():
        gain, error = _gain(row, scores[value])
        if other != value and gain + _ONE_SIDED_95 * error > margin:
            found.append(other)
    return tuple(found)


def _gain(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Mean of a - b, and its standard error."""
    difference = a - b
    return float(difference.mean()), float(difference.std(ddof=1)) / math.sqrt(len(difference))


def _at_most(gain: tuple[float, float], margin: float) -> float:
    """Probability that a gain is at most the margin, by the normal distribution of its mean."""
    mean, error = gain
    if error == 0:
        return float(mean <= margin)
    return 0.5 * (1 + math.erf((margin - mean) / error / math.sqrt(2)))
