"""Runs a converted graph beside the float32 model on real images, and compares their results."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trtconvert.pair import Pair, Side, discounted
from trtconvert.progress import Progress, silent
from visionrt.errors import AccuracyError, InputDataError, UsageError
from visionrt.metrics import Agreement, OutputCosine, accumulator_for
from visionrt.recipe import Recipe
from visionrt.results import Classification, Result

# Other spellings of the metrics of visionrt.metrics, as --max-drop takes them.
_ALIASES = {
    "accuracy": "top1",
    "map": "box_f1",
    "f1": "box_f1",
    "miou": "pixel",
    "pixels": "pixel",
    "pck": "keypoint_f1",
    "keypoints": "keypoint_f1",
}
_METRICS = ("top1", "box_f1", "pixel", "keypoint_f1", "cosine")
_SYNTHETIC_IMAGES = 4


def verify(
    reference: bytes | Path,
    candidate: bytes | Path,
    recipe: Recipe,
    images: Sequence[Path],
    progress: Progress = silent,
    *,
    labels: Mapping[str, frozenset[int]] | None = None,
    optimize: bool = False,
    confidence: float | None = None,
) -> Agreement:
    """Agreement of two ONNX graphs on images; blocks. Holds one image at a time.

    Args:
        reference: the float32 model, serialized or a file.
        candidate: what to measure, alike.
        recipe: of both.
        images: files; each is decoded and preprocessed once for both. With none, the raw outputs
            are compared on synthetic images: metric ``cosine``, ``images`` 0, and a warning. An
            image on which only the candidate gives NaN or infinity is one without agreement.
        progress: called after each image.
        labels: accepted class ids by file name; adds ``labelled``, ``correct_reference`` and
            ``correct_candidate`` to the details of a classifier.
        optimize: whether ONNX Runtime may rewrite the candidate: no for Q/DQ and emulated float16
            graphs, whose roundings would move; yes for the CPU twin as it will run.
        confidence: score threshold of the candidate; default: the recipe's, as the reference's.

    Raises:
        ModelError: a graph does not load or run, or does not fit the recipe.
        InputDataError: no image can be read.
    """
    sides = (
        lambda: Side(reference, recipe),
        lambda: Side(candidate, recipe, optimize=optimize, confidence=confidence),
    )
    with Pair(*sides) as pair:
        if not images:
            return _on_synthetic_images(pair, recipe, progress)
        return _on_images(pair, recipe, images, progress, labels or {})


def _on_images(
    pair: Pair,
    recipe: Recipe,
    images: Sequence[Path],
    progress: Progress,
    labels: Mapping[str, frozenset[int]],
) -> Agreement:
    accumulator, cosine = accumulator_for(recipe.task), OutputCosine()
    correct, labelled = [0, 0], 0
    for compared in pair.compare(images, "Verifying", progress):
        cosine.update(*compared.outputs)
        accumulator.update(*compared.results)
        accepted = labels.get(compared.path.name)
        if accepted is not None:
            labelled += 1
            for which, result in enumerate(compared.results):
                correct[which] += _is_correct(result, accepted)
    out = accumulator.agreement()
    details = dict(out.details)
    if labelled:
        details |= {"labelled": labelled}
        details |= {"correct_reference": correct[0], "correct_candidate": correct[1]}
    warnings = [*pair.skipped, *_broken_warnings(cosine)]
    if out.details.get("boxes_reference") == 0 or out.details.get("keypoints_reference") == 0:
        warnings.append("FP32 found nothing on these images: give some the model is for")
    return dataclasses.replace(
        discounted(out, cosine.broken),
        cosine=cosine.mean(),
        details=details,
        warnings=tuple(warnings),
    )


def _on_synthetic_images(pair: Pair, recipe: Recipe, progress: Progress) -> Agreement:
    cosine = OutputCosine()
    for index, pixels in enumerate(synthetic_images(recipe.preprocess.size)):
        cosine.update(*pair.outputs(pixels))
        progress("Verifying", index + 1, _SYNTHETIC_IMAGES)
    mean = cosine.mean()
    warning = "verified on synthetic images only: the figure says little about real ones"
    return Agreement(
        "cosine",
        0,
        max(0.0, mean if mean is not None else 1.0),
        cosine=mean,
        warnings=(warning, *_broken_warnings(cosine)),
    )


def _broken_warnings(cosine: OutputCosine) -> list[str]:
    count = cosine.broken
    return [f"NaN or infinity on {count} images where FP32 gives numbers"] if count else []


def synthetic_images(size_hw: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Deterministic uint8 BGR images: gradients with coloured shapes and a little noise."""
    h, w = size_hw
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    out = []
    for seed in range(_SYNTHETIC_IMAGES):
        rng = np.random.default_rng(seed)
        angle = rng.uniform(0, 2 * np.pi, 3)
        ramp = np.stack([np.cos(a) * x / w + np.sin(a) * y / h for a in angle], axis=-1)
        image = 128 + 90 * ramp
        for _ in range(6):
            cy, cx, r = rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0.05, 0.25) * min(h, w)
            image[(y - cy) ** 2 + (x - cx) ** 2 < r * r] = rng.uniform(0, 255, 3)
        image += rng.normal(0, 6, image.shape)
        out.append(np.clip(image, 0, 255).astype(np.uint8))
    return out


def read_labels(path: Path) -> dict[str, frozenset[int]]:
    """Accepted class ids by file name, from a CSV with ``file`` and ``accepted_class_ids``.

    Raises:
        InputDataError: no such file, another header, or an id that is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return {
                row["file"]: frozenset(int(i) for i in row["accepted_class_ids"].split())
                for row in csv.DictReader(stream)
            }
    except (OSError, KeyError, ValueError, AttributeError, csv.Error) as error:
        raise InputDataError(
            f"a CSV of labels in {path}, with the columns file and accepted_class_ids",
            got=str(error),
            fix="Write one line per image, its class ids apart by spaces.",
        ) from error


def labels_beside(folder: Path) -> dict[str, frozenset[int]]:
    """The labels of ``labels.csv`` inside a folder or beside it; empty where there is none."""
    for path in (folder / "labels.csv", folder.parent / "labels.csv"):
        if path.is_file():
            return read_labels(path)
    return {}


@dataclass(frozen=True)
class MaxDrop:
    """How much worse than the float32 model a conversion may be.

    Attributes:
        drop: allowed drop of the agreement, 0…1.
        metric: the metric it was stated for, or None for whichever the task has.
    """

    drop: float
    metric: str | None = None

    @classmethod
    def parse(cls, text: str) -> MaxDrop:
        """Read ``1%``, ``0.01``, ``top1=1%`` or ``map=0.01``; without ``%`` it is a share.

        Raises:
            UsageError: another form, an unknown metric, or a drop outside 0…1.
        """
        name, _, number = text.strip().rpartition("=")
        metric = _ALIASES.get(name.lower(), name.lower()) if name else None
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", number)
        drop = float(match[1]) / (100 if match[2] else 1) if match else -1.0
        if not 0 <= drop <= 1 or (metric is not None and metric not in _METRICS):
            raise UsageError(
                "an allowed drop such as 1%, 0.01 or top1=1%",
                got=repr(text),
                fix=f"Metrics are {', '.join((*_METRICS, *_ALIASES))}.",
            )
        return cls(drop, metric)


def enforce(agreement: Agreement, max_drop: MaxDrop, *, reference: str = "FP32") -> None:
    """Raise when the agreement with ``reference`` fell by more than is allowed.

    Raises:
        AccuracyError: it did.
        UsageError: the limit was stated for another metric than was measured.
    """
    if max_drop.metric is not None and max_drop.metric != agreement.metric:
        raise UsageError(
            f"--max-drop for {agreement.metric}, which is what was measured",
            got=max_drop.metric,
            fix=f"Write {agreement.metric}={max_drop.drop:.3g}, or the number alone.",
        )
    # One unit in the last place of a ratio of counts is no drop.
    if agreement.agreement < 1 - max_drop.drop - 1e-9:
        raise AccuracyError(
            f"{agreement.metric} agreement with {reference} of at least {1 - max_drop.drop:.2%}",
            got=f"{agreement.agreement:.2%} on {agreement.images} images",
            fix="Use --precision fp16, calibrate with more images like those the model will see, "
            "or allow a larger --max-drop.",
        )


def _is_correct(result: Result, accepted: frozenset[int]) -> bool:
    return (
        isinstance(result, Classification)
        and len(result) > 0
        and int(result.class_id[0]) in accepted
    )
