"""Runs a model on images under several preprocess specs, and scores each image's answer.

With labels the score of an image is the logarithm of the probability that the model gives to the
classes which are accepted for it: a proper score, so neither more nor less confidence than is due
pays. A few labels may be wrong, so a share of the probability is spread evenly, which bounds it.
Without labels it is the image's steadiness; see ``calibration/feeding.py``.

Specs that are beyond doubt behind the best after ``LOOKS`` images are run no further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtconvert.calibration.answers import Answer, AnswerReader
from trtconvert.calibration.feeding import critical_t, steadiness, t_statistic
from trtconvert.progress import Progress
from visionrt import image_io
from visionrt.errors import InputDataError
from visionrt.results import Classification
from visionrt.spec import PreprocessSpec

LOOKS = (12, 24)
WRONG_LABELS = 0.02
Scores = dict[str, NDArray[np.float64]]


@dataclass
class _Trial:
    spec: PreprocessSpec
    whole: list[Answer] = field(default_factory=list)
    zoomed: list[Answer] = field(default_factory=list)
    labelled: list[float] = field(default_factory=list)


class Trials:
    """Scores specs on one set of images; what was run is kept.

    Args:
        reader: runs the model.
        files: images to judge by; one that cannot be read is passed over.
        labels: accepted class ids by file name; with none, images are judged without.
        progress: told of each image.

    Attributes:
        dropped: of specs that were not run to the end, how many images they were run on.
    """

    def __init__(
        self,
        reader: AnswerReader,
        files: Sequence[Path],
        labels: Mapping[str, frozenset[int]],
        progress: Progress,
    ) -> None:
        self._reader = reader
        self._labels = labels
        self._progress = progress
        self._files = files
        self._scores: dict[PreprocessSpec, NDArray[np.float64]] = {}
        self.dropped: dict[str, int] = {}

    @property
    def labelled(self) -> bool:
        """Whether labels judge."""
        return bool(self._labels)

    def scores(self, specs: Mapping[str, PreprocessSpec]) -> Scores:
        """By key, float64 ``[images]``: the higher, the better; without those dropped on the way.

        Raises:
            ModelError: the model does not run.
            InputDataError: no image can be read.
        """
        live = {key: _Trial(spec) for key, spec in specs.items() if spec not in self._scores}
        seen = 0
        for done, path in enumerate(self._files if live else (), 1):
            try:
                pixels = image_io.decode(path)
            except InputDataError:
                continue
            seen += 1
            for trial in live.values():
                self._take(trial, pixels, path.name)
            if seen in LOOKS:
                live = self._without_the_hopeless(live, seen)
            self._progress("Trying preprocess specs", done, len(self._files))
        if live and not seen:
            raise InputDataError(
                "an image that can be read", got="none", fix="Give JPEG, PNG or WebP files."
            )
        for trial in live.values():
            self._scores[trial.spec] = self._of(trial)
        return {key: self._scores[spec] for key, spec in specs.items() if spec in self._scores}

    def _take(self, trial: _Trial, pixels: NDArray[np.uint8], name: str) -> None:
        answer, result = self._reader.whole(pixels, trial.spec)
        if self._labels:
            trial.labelled.append(log_probability(result, self._labels[name]))
            return
        trial.whole.append(answer)
        trial.zoomed.append(self._reader.zoomed(pixels, trial.spec))

    def _of(self, trial: _Trial) -> NDArray[np.float64]:
        if self._labels:
            return np.array(trial.labelled)
        return steadiness(trial.whole, trial.zoomed)

    def _without_the_hopeless(self, live: dict[str, _Trial], seen: int) -> dict[str, _Trial]:
        scores = {key: self._of(trial) for key, trial in live.items()}
        best = max(scores.values(), key=lambda values: float(values.mean()))
        limit = critical_t(seen, is_last=False)
        kept = {k: trial for k, trial in live.items() if t_statistic(best - scores[k]) < limit}
        self.dropped |= dict.fromkeys(live.keys() - kept.keys(), seen)
        return kept


def log_probability(result: Any, accepted: frozenset[int]) -> float:
    """Of the accepted classes together, where ``WRONG_LABELS`` of the labels may be any class."""
    assert isinstance(result, Classification)
    share = float(result.confidence[np.isin(result.class_id, list(accepted))].sum())
    return math.log((1 - WRONG_LABELS) * share + WRONG_LABELS / max(result.logits.size, 2))


def mean_over(scores: Scores, keys: Callable[[str], bool]) -> NDArray[np.float64]:
    """The mean of the chosen rows, image by image."""
    return np.asarray(np.mean([row for key, row in scores.items() if keys(key)], axis=0))
