"""Finds out whether a model would rather be fed in another way than its preprocess spec says.

1. ``color-order``: the model prefers its channels in the other order.
2. ``scale``: the model prefers another mean and standard deviation, of those in ``choices.py``.

How it is found: an image's *steadiness* under a spec is the likeness of the answers to the whole
image and to its enlarged middle, minus the mean likeness to the middles of the other images (see
``answers.py``). Confidence is no such measure: a model that is fed 0…255 instead of 0…1 is more
sure of itself, not less. The gain of an alternative is its steadiness minus the spec's, image by
image, so that the images' own difficulty cancels. It is reported when its mean is at least
``LEAST_GAIN`` and beyond chance in a paired one-sided t-test. Looks are taken at ``LOOKS`` images,
at 0.1 % each, and at the last image, at 1 %; an alternative that is well behind then is tried no
further. So a rightly fed model costs little more than 2 × ``LOOKS[0]`` runs per alternative.

Where a mask or a pose is sought, most images may hold none. A rightly fed model finds nothing in
them, which is less steady than the patterns that a wrongly fed one sees: so it must also become
surer of itself, and 0.1 % holds for the last look, too.

With fewer than ``LOOKS[0]`` images nothing is said. A swap of channels changes many models little:
of the two classifiers that this was measured with, it shows in most sets of 43 photos and in nine
of ten sets of 96; with a detector it took 120.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtconvert.calibration.answers import Answer, AnswerReader, stacked, sureness
from trtconvert.calibration.findings import Finding
from trtconvert.preprocessing.choices import SCALES
from trtconvert.progress import Progress
from visionrt import image_io
from visionrt.recipe import Recipe
from visionrt.results import Classification, Detections
from visionrt.spec import PreprocessSpec

LOOKS = (12, 24, 48, 96, 192)
# A wrong scale shows soon, if at all.
LAST_LOOK = {"color-order": LOOKS[-1], "scale": 48}
LEAST_GAIN = 0.01
# t from which an alternative is tried no further.
BEHIND = -0.5
# Images that are classified to see whether they are all of one class.
SEEN = 48
# A set is of one class when its share is this far from an even share to all.
ONE_CLASS = 0.6
_LEAST_SET = 8
_GOLDEN = 0.6180339887498949
# Scales whose ends differ by less, as a share of the spec's range, are the same.
_SAME_SCALE = 0.1


@dataclass
class _Alternative:
    code: str
    text: str
    spec: PreprocessSpec
    whole: list[Answer] = field(default_factory=list)
    zoomed: list[Answer] = field(default_factory=list)
    sureness: float = 0.0
    gain: float = 0.0

    def add(self, reader: AnswerReader, pixels: NDArray[np.uint8]) -> Any:
        """Take an image; returns the result for it."""
        answer, result = reader.whole(pixels, self.spec)
        self.whole.append(answer)
        self.zoomed.append(reader.zoomed(pixels, self.spec))
        self.sureness += sureness(result)
        return result


def feeding_findings(
    reader: AnswerReader, recipe: Recipe, files: Sequence[Path], progress: Progress
) -> list[Finding]:
    """What the model says of its preprocess spec and of the images' classes.

    Args:
        reader: of the float32 model.
        recipe: its preprocess spec is what is judged.
        files: readable images.
        progress: called after each image.
    """
    own = _Alternative("", "", recipe.preprocess)
    live = alternatives(recipe.preprocess) if len(files) >= LOOKS[0] else []
    preferred: list[_Alternative] = []
    best: list[int] = []
    classes = len(recipe.labels)
    ordered = spread(files)[: LOOKS[-1]]
    for done, path in enumerate(ordered, 1):
        if not live and done > SEEN:
            break
        pixels = image_io.decode(path)
        result = own.add(reader, pixels) if live else reader.whole(pixels, own.spec)[1]
        best += _best_class(result, recipe)
        if isinstance(result, Classification):
            classes = result.logits.size
        for alternative in live:
            alternative.add(reader, pixels)
        if live and (done in LOOKS or done == len(ordered)):
            live, sure = _look(own, live, recipe.task, len(ordered))
            preferred += sure
            if any(alternative.code == "scale" for alternative in sure):
                # What a wrongly scaled model thinks of colours means nothing.
                live = []
        progress("Auditing the model's input", done, len(ordered))
    return [*_preferences(preferred), *_one_class(best, recipe, classes, min(len(ordered), SEEN))]


def alternatives(spec: PreprocessSpec) -> list[_Alternative]:
    """Other ways to feed the model: the channels swapped, and each common scale."""
    out = []
    swapped = {"rgb": "bgr", "bgr": "rgb"}.get(spec.color)
    if swapped is not None:
        orders = f"{swapped.upper()} than {spec.color.upper()}"
        text = f"with its channels in the order {orders}, as specified"
        # Mean and std stay with their planes, as if the images' channels were swapped.
        out.append(_Alternative("color-order", text, spec.replace(color=swapped)))
    if spec.dtype == "uint8":
        return out
    step = -1 if spec.color == "bgr" else 1
    for name, (mean, std) in SCALES.items():
        other = spec.replace(mean=mean[::step], std=std[::step])
        if not _is_same_scale(spec, other):
            text = f"to pixels scaled as {name} than as specified"
            out.append(_Alternative("scale", text, other))
    return out


def steadiness(whole: list[Answer], zoomed: list[Answer]) -> NDArray[np.float64]:
    """Of each image: −1…1; see the module."""
    rows = stacked([*whole, *zoomed]).astype(np.float64)
    likeness = rows[: len(whole)] @ rows[len(whole) :].T
    own = np.diagonal(likeness)
    return np.asarray(own - (likeness.sum(axis=1) - own) / (len(whole) - 1))


def t_statistic(gains: NDArray[np.float64]) -> float:
    """Mean over its standard error; 0 where all are 0."""
    spread_ = float(gains.std(ddof=1))
    mean = float(gains.mean())
    if spread_ == 0.0:
        return 0.0 if mean == 0.0 else float(np.copysign(np.inf, mean))
    return mean / spread_ * float(np.sqrt(len(gains)))


def critical_t(count: int, *, is_last: bool) -> float:
    """The one-sided point of Student's t for ``count`` pairs: 0.1 %, or 1 % at the last look.

    Within 0.04 from 12 pairs on. Cornish-Fisher expansion: M. Abramowitz and I. Stegun, Handbook of
    Mathematical Functions, 1964, 26.7.5.
    """
    z, freedom = 2.326348 if is_last else 3.090232, count - 1
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def spread(files: Sequence[Path]) -> list[Path]:
    """The files in an order in which every beginning is spread over the whole list."""
    order = sorted(range(len(files)), key=lambda i: (i * _GOLDEN) % 1.0)
    return [files[i] for i in order]


def _look(
    own: _Alternative, live: list[_Alternative], task: str, images: int
) -> tuple[list[_Alternative], list[_Alternative]]:
    """Alternatives to go on with, and those that the model prefers; ``images`` there are."""
    base = steadiness(own.whole, own.zoomed)
    is_sparse = task in ("segment", "keypoints")
    left, sure = [], []
    for alternative in live:
        gains = steadiness(alternative.whole, alternative.zoomed) - base
        alternative.gain = float(gains.mean())
        t, count = t_statistic(gains), len(gains)
        is_last = count >= min(images, LAST_LOOK[alternative.code])
        if (
            t >= critical_t(count, is_last=is_last and not is_sparse)
            and alternative.gain >= LEAST_GAIN
            and (alternative.sureness > own.sureness or not is_sparse)
        ):
            sure.append(alternative)
        elif t >= BEHIND and not is_last:
            left.append(alternative)
    return left, sure


def _preferences(preferred: Sequence[_Alternative]) -> list[Finding]:
    """At most one finding: of several scales, the one with the largest gain."""
    if not preferred:
        return []
    best = max(preferred, key=lambda a: (a.code == "scale", a.gain))
    text = (
        f"the model answers better {best.text} (steadiness +{best.gain:.2f} on "
        f"{len(best.whole)} images): check --preprocess, and how the images were written"
    )
    return [Finding(best.code, text)]


def _best_class(result: Any, recipe: Recipe) -> list[int]:
    if isinstance(result, Detections):
        result = result[result.confidence >= recipe.confidence]
    if isinstance(result, (Classification, Detections)) and len(result):
        return [int(result.class_id[int(np.argmax(result.confidence))])]
    return []


def _one_class(best: Sequence[int], recipe: Recipe, classes: int, seen: int) -> list[Finding]:
    """``classes`` is 0 where nobody knows; a detector that finds little says nothing."""
    if len(best) < max(_LEAST_SET, seen / 2) or classes == 1:
        return []
    class_id, count = Counter(best).most_common(1)[0]
    even = 1 / classes if classes else 0.0
    if count / len(best) < even + ONE_CLASS * (1 - even):
        return []
    text = (
        f"the model takes {count} of {len(best)} images for one class, "
        f"{recipe.label(class_id)!r}: add images of others"
    )
    return [Finding("one-class", text)]


def _is_same_scale(a: PreprocessSpec, b: PreprocessSpec) -> bool:
    ends = [
        (np.array([[0.0], [255.0]]) - np.array(spec.mean)) / np.array(spec.std) for spec in (a, b)
    ]
    allowed = _SAME_SCALE * 255.0 / np.array(a.std)
    return bool(np.all(np.abs(ends[0] - ends[1]) <= allowed))
