"""Moves a detector's score threshold so that its int8 graph finds what the float32 model finds.

Quantization shifts scores, and a threshold that was chosen for float32 then keeps too many or too
few boxes. The *transferred* threshold is the one at which the int8 graph's boxes have the largest
F1 against the float32 model's boxes at the recipe's threshold, matched as in
:class:`visionrt.metrics.BoxAgreement`; of equals, the nearest to the recipe's.

Matching and NMS take boxes best first, so a higher threshold only cuts the list: one pass with a
threshold of ``FLOOR`` times the recipe's gives the F1 of every threshold above that.

It is taken only where there is evidence for it:

1. at least ``ENOUGH_BOXES`` boxes of the float32 model;
2. the boxes between the two thresholds speak for it by ``SURE`` standard errors: one that matches
   counts 2 − F1, another −F1, which is its share in the change of F1; signs turn when the
   threshold rises;
3. thresholds chosen on every other image gain on the images between, the two halves added up.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtconvert.progress import Progress, silent
from visionrt import image_io
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError
from visionrt.metrics import match_boxes
from visionrt.options import options_for
from visionrt.pipeline import Pipeline
from visionrt.recipe import Recipe
from visionrt.results import Detections

FLOOR = 0.1
ENOUGH_BOXES = 50
SURE = 2.0


@dataclass(frozen=True)
class Transfer:
    """A threshold before and after.

    Attributes:
        fp32: the recipe's.
        transferred: what the int8 graph should use; equal to ``fp32`` where nothing speaks for a
            change.
        f1_before, f1_after: of the int8 graph's boxes at the two.
        boxes: of the float32 model.
        reason: why it was changed, or not.
    """

    fp32: float
    transferred: float
    f1_before: float
    f1_after: float
    boxes: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        return dataclasses.asdict(self)


@dataclass
class ScoredBoxes:
    """Candidate boxes of a set of images, and which of them match.

    Attributes:
        scores, matches, image: one per candidate box.
        references: how many reference boxes each image has.
    """

    scores: list[float] = field(default_factory=list)
    matches: list[bool] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    references: list[int] = field(default_factory=list)

    def update(self, reference: Detections, candidate: Detections) -> None:
        """Take one image; the candidate's boxes reach below any threshold that may be chosen."""
        matched = {row for row, _, _ in match_boxes(reference, candidate)}
        self.scores += candidate.confidence.tolist()
        self.matches += [row in matched for row in range(len(candidate))]
        self.image += [len(self.references)] * len(candidate)
        self.references.append(len(reference))

    def half(self, parity: int) -> _Sorted:
        """Every other image."""
        return self._sorted(
            np.array(self.image, np.int64) % 2 == parity, self.references[parity::2]
        )

    def whole(self) -> _Sorted:
        """All images."""
        return self._sorted(np.ones(len(self.image), np.bool_), self.references)

    def _sorted(self, chosen: NDArray[np.bool_], references: Sequence[int]) -> _Sorted:
        scores = np.array(self.scores, np.float64)[chosen]
        order = np.argsort(-scores, kind="stable")
        return _Sorted(
            scores[order], np.array(self.matches, np.bool_)[chosen][order], sum(references)
        )


@dataclass(frozen=True)
class _Sorted:
    """Candidates, best first."""

    scores: NDArray[np.float64]
    matches: NDArray[np.bool_]
    references: int

    def kept(self, threshold: float) -> int:
        """How many are above a threshold."""
        return int((self.scores > threshold).sum())

    def f1_by_kept(self) -> NDArray[np.float64]:
        """F1 when the first k are kept, k from 0 to all; 1 where there is nothing to find."""
        hits = np.concatenate([[0], np.cumsum(self.matches)])
        total = self.references + np.arange(len(hits))
        return np.divide(2.0 * hits, total, out=np.ones(len(hits)), where=total > 0)

    def best(self, original: float) -> float:
        """The threshold with the largest F1, of equals the nearest to ``original``."""
        f1 = self.f1_by_kept()
        # Nothing is known below the threshold of the pass.
        ends = np.concatenate([[1.0], self.scores, [FLOOR * original]])
        thresholds = (ends[:-1] + ends[1:]) / 2
        thresholds[self.kept(original)] = original
        # Boxes of one score cannot be told apart by a threshold.
        f1[ends[:-1] == ends[1:]] = -1.0
        best = np.flatnonzero(f1 >= f1.max() - 1e-12)
        return float(thresholds[best[np.argmin(np.abs(thresholds[best] - original))]])


def choose_threshold(boxes: ScoredBoxes, original: float) -> Transfer:
    """The transferred threshold; see the module."""
    every = boxes.whole()
    f1 = every.f1_by_kept()
    best = every.best(original)
    before, after = every.kept(original), every.kept(best)
    kept = Transfer(original, original, float(f1[before]), float(f1[before]), every.references, "")
    if every.references < ENOUGH_BOXES:
        reason = f"kept: {every.references} boxes are too few; {ENOUGH_BOXES} would do"
        return dataclasses.replace(kept, reason=reason)
    if best == original:
        return dataclasses.replace(kept, reason="kept: no other threshold is better")
    surety = _surety(every.matches[min(before, after) : max(before, after)], float(f1[before]))
    surety = surety if after > before else -surety
    if surety < SURE or _held_out_gain(boxes, original) <= 0:
        return dataclasses.replace(kept, reason="kept: the gain is within chance")
    gain = f1[after] - f1[before]
    reason = f"F1 +{gain:.3f}, {surety:.1f} standard errors"
    return Transfer(original, best, float(f1[before]), float(f1[after]), every.references, reason)


def measure_transfer(
    reference: bytes | Path,
    candidate: bytes | Path,
    recipe: Recipe,
    images: Sequence[Path],
    progress: Progress = silent,
) -> Transfer:
    """Run both graphs on the images, and choose; blocks. Holds one image at a time.

    Args:
        reference: the float32 model, serialized or a file.
        candidate: the int8 graph; it runs as it is written.
        recipe: of a detector.
        images: files; those that cannot be read are passed over.
        progress: called after each image.
    """
    floor = options_for(recipe, confidence=FLOOR * recipe.confidence)
    boxes = ScoredBoxes()
    backends = (OnnxRuntimeBackend(reference), OnnxRuntimeBackend(candidate, optimize=False))
    pipelines = [Pipeline(recipe, backend, max_batch=1) for backend in backends]
    try:
        for done, path in enumerate(images, 1):
            try:
                pixels = image_io.decode(path)
            except InputDataError:
                # Verification has named it.
                continue
            results = [
                pipeline.run([pixels], options, "bgr")[0]
                for pipeline, options in zip(pipelines, (options_for(recipe), floor), strict=True)
            ]
            boxes.update(*_detections(results))
            progress("Transferring the threshold", done, len(images))
    finally:
        for backend in backends:
            backend.close()
    return choose_threshold(boxes, recipe.confidence)


def _detections(results: Sequence[Any]) -> list[Detections]:
    return [result for result in results if isinstance(result, Detections)]


def _surety(matches: NDArray[np.bool_], f1: float) -> float:
    shares = 2.0 * matches - f1
    return float(shares.sum()) / math.sqrt(float(np.square(shares).sum()) or 1.0)


def _held_out_gain(boxes: ScoredBoxes, original: float) -> float:
    gain = 0.0
    for parity in (0, 1):
        chosen = boxes.half(parity).best(original)
        other = boxes.half(1 - parity)
        f1 = other.f1_by_kept()
        gain += float(f1[other.kept(chosen)] - f1[other.kept(original)])
    return gain
