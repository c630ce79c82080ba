"""Finds a preprocess spec by trying specs on images; asks where they do not settle it.

The search is by field: first scale and colour order together, fed with the task's usual resizing;
then resizing (with labels), which also gives more comparisons of the scales and colours that are
left. Size, layout and element type are the graph's.

Without labels resizing cannot be judged: the pictures that the model sees then differ in what they
show. The task's usual one is taken, and the reason says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from trtconvert.calibration.answers import AnswerReader
from trtconvert.calibration.feeding import spread
from trtconvert.preprocessing.choices import (
    COLORS,
    MAIN_RESIZES,
    RESIZES,
    SCALES,
    usual_resize,
    with_choice,
)
from trtconvert.preprocessing.decide import Decision, decide
from trtconvert.preprocessing.first_layer import plausible_scales
from trtconvert.preprocessing.graph_scale import scale_in_graph
from trtconvert.preprocessing.trials import Scores, Trials, mean_over
from trtconvert.progress import Progress, silent
from visionrt import image_io
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError, UsageError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

LEAST_IMAGES = 12
MOST_IMAGES = 96
# Images for the first layer's size.
_FIRST_LAYER_IMAGES = 8
_USUAL_COLOR = "rgb"
# What the graph or its exporter tells is worth,
_TOLD = 0.9
# and a convention, where images do not speak.
CONVENTION = 0.6
# Scales that are compared over several resizings.
_FINALISTS = 3
_SEPARATOR = " | "


@dataclass(frozen=True)
class DetectedSpec:
    """What was found.

    Attributes:
        spec: to use.
        reasons, confidence: by field of the spec.
        ranking: (scale | colour | resize, mean score), the best first; of all that were run to the
            end.
        labelled: whether labels judged.
    """

    spec: PreprocessSpec
    reasons: Mapping[str, str]
    confidence: Mapping[str, float]
    ranking: Sequence[tuple[str, float]]
    labelled: bool


def detect_spec(
    model: ModelProto,
    recipe: Recipe,
    files: Sequence[Path],
    labels: Mapping[str, frozenset[int]],
    progress: Progress = silent,
) -> DetectedSpec:
    """Try specs on images; blocks.

    Args:
        model: the float32 model.
        recipe: task and head; of its spec, size, layout, element type and grey are kept.
        files: images, at least ``LEAST_IMAGES`` of which can be read.
        labels: accepted class ids by file name, of a classifier; may be empty.
        progress: told of each image.

    Raises:
        UsageError: too few images, or several values of a field fit as well and matter.
        ModelError: the model does not run, or does not fit the recipe.
    """
    labelled = [path for path in files if path.name in labels]
    if recipe.task != "classify" or len(labelled) < LEAST_IMAGES:
        labels, labelled = {}, list(files)
    chosen = spread(labelled)[:MOST_IMAGES]
    if len(chosen) < LEAST_IMAGES:
        raise UsageError(
            f"--preprocess, or at least {LEAST_IMAGES} images to find it by",
            got=f"{len(chosen)} images",
            fix="Add typical images to --images, with a labels.csv where there are labels.",
        )
    backend = OnnxRuntimeBackend(model.SerializeToString())
    try:
        trials = Trials(AnswerReader(backend, recipe), chosen, labels, progress)
        search = _Search(recipe, trials, is_tensorflow=model.producer_name == "tf2onnx")
        return search.run(*_scales(model, recipe, chosen))
    finally:
        backend.close()


def _scales(model: ModelProto, recipe: Recipe, files: Sequence[Path]) -> tuple[list[str], str]:
    """The scales worth trying, and why the others are not."""
    spec = recipe.preprocess
    if spec.dtype == "uint8":
        return ["0…255"], "the graph takes uint8 pixels"
    written = scale_in_graph(model)
    if written is not None:
        return [written], "the graph scales its input itself, and takes this"
    images = []
    for path in files[:_FIRST_LAYER_IMAGES]:
        try:
            images.append(image_io.decode(path))
        except InputDataError:
            continue
    resize = usual_resize(recipe.task, recipe.head, recipe.head_options)
    specs = {scale: with_choice(spec, scale, _USUAL_COLOR, resize) for scale in SCALES}
    kept = plausible_scales(model, specs, images) if images else list(SCALES)
    return kept, "the first convolution's output has a usual size with no other"


class _Search:
    def __init__(self, recipe: Recipe, trials: Trials, *, is_tensorflow: bool) -> None:
        self._base = recipe.preprocess
        self._resize = usual_resize(recipe.task, recipe.head, recipe.head_options)
        self._trials = trials
        self._scores: Scores = {}
        self._colors: tuple[str, ...] = COLORS
        self._why_color = ""
        if self._base.channels == 1:
            self._colors, self._why_color = (self._base.color,), "the graph's input has one channel"
        elif is_tensorflow:
            self._colors, self._why_color = ("rgb",), "TensorFlow, where it is from, reads RGB"

    def run(self, scales: Sequence[str], why_these: str) -> DetectedSpec:
        """The whole search."""
        self._try_all([(s, c, self._resize) for s in scales for c in self._colors])
        scale, color, _ = max(self._scores, key=self._mean).split(_SEPARATOR)
        resizes = [self._resize]
        if self._trials.labelled:
            left = self._left(scales, color)[:_FINALISTS]
            self._try_all(
                [(scale, color, r) for r in RESIZES]
                + [(s, color, r) for s in left for r in MAIN_RESIZES]
                + [(scale, c, r) for c in self._colors for r in MAIN_RESIZES]
            )
            resizes = [r for r in MAIN_RESIZES if self._key(scale, color, r) in self._scores]
        by_scale = self._decide_scale(scales, color, resizes, why_these)
        by_color = self._decide_color(scale, resizes)
        by_resize = self._decide_resize(scale, color)
        decisions = {"scale": by_scale, "color": by_color, "resize": by_resize}
        self._ask_where_open(decisions)
        spec = with_choice(self._base, by_scale.value, by_color.value, by_resize.value)
        fields = {"mean": by_scale, "std": by_scale, "color": by_color, "resize": by_resize}
        fields |= dict.fromkeys(("crop_ratio", "interpolation", "pad_value"), by_resize)
        ranking = sorted(((key, self._mean(key)) for key in self._scores), key=lambda row: -row[1])
        return DetectedSpec(
            spec,
            {key: decision.reason for key, decision in fields.items()},
            {key: decision.confidence for key, decision in fields.items()},
            ranking,
            self._trials.labelled,
        )

    def _try_all(self, choices: Sequence[tuple[str, str, str]]) -> None:
        specs = {self._key(*choice): with_choice(self._base, *choice) for choice in choices}
        self._scores |= self._trials.scores(specs)

    def _left(self, scales: Sequence[str], color: str) -> list[str]:
        """Scales that were run to the end, the best first."""
        left = [s for s in scales if self._key(s, color, self._resize) in self._scores]
        return sorted(left, key=lambda s: -self._mean(self._key(s, color, self._resize)))

    def _decide_scale(
        self, scales: Sequence[str], color: str, resizes: Sequence[str], why_these: str
    ) -> Decision:
        if len(scales) == 1:
            return Decision(scales[0], _TOLD, f"{scales[0]}: {why_these}")
        rows = {}
        for scale in scales:
            keys = {self._key(scale, color, r) for r in resizes}
            if keys <= self._scores.keys():
                rows[scale] = mean_over(self._scores, keys.__contains__)
        found = decide(rows, usual=None, labelled=self._trials.labelled)
        return replace(found, reason=f"{found.value}: {found.reason}")

    def _decide_color(self, scale: str, resizes: Sequence[str]) -> Decision:
        if len(self._colors) == 1:
            return Decision(self._colors[0], _TOLD, self._why_color)
        rows = {}
        for color in self._colors:
            keys = {self._key(scale, color, r) for r in resizes}
            if keys <= self._scores.keys():
                rows[color] = mean_over(self._scores, keys.__contains__)
        return decide(rows, usual=_USUAL_COLOR, labelled=self._trials.labelled)

    def _decide_resize(self, scale: str, color: str) -> Decision:
        if not self._trials.labelled:
            reason = "usual for this task; images without labels cannot tell"
            return Decision(self._resize, CONVENTION, reason)
        rows = {
            resize: self._scores[key]
            for resize in RESIZES
            if (key := self._key(scale, color, resize)) in self._scores
        }
        found = decide(rows, usual=self._resize, labelled=True)
        return replace(found, reason=f"{found.value}: {found.reason}")

    def _ask_where_open(self, decisions: Mapping[str, Decision]) -> None:
        open_fields = {name: d for name, d in decisions.items() if d.rivals}
        if not open_fields:
            return
        choices = "; ".join(
            f"{name} {' or '.join((d.value, *d.rivals))}" for name, d in open_fields.items()
        )
        reasons = "; ".join(d.reason for d in open_fields.values())
        raise UsageError(
            "--preprocess, since the images do not settle it",
            got=f"{choices} fit as well ({reasons})",
            fix="Give --preprocess, or more images with a labels.csv.",
        )

    def _mean(self, key: str) -> float:
        return float(self._scores[key].mean())

    @staticmethod
    def _key(scale: str, color: str, resize: str) -> str:
        return _SEPARATOR.join((scale, color, resize))
