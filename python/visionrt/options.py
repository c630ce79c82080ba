"""What a caller may change from call to call, checked once and passed to the head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from visionrt.errors import UsageError
from visionrt.recipe import Recipe


@dataclass(frozen=True)
class PredictOptions:
    """Thresholds and filters of one call.

    Attributes:
        confidence: score threshold, 0…1; what it means for a task is said by the heads.
        iou: NMS threshold, 0…1.
        max_det: most detections per image.
        classes: class ids to keep, or None for all.
        top_k: most classes a classifier returns.
        keep_on_device: whether boxes that a GPU decodes stay there until they are read.
    """

    confidence: float
    iou: float
    max_det: int
    classes: tuple[int, ...] | None
    top_k: int
    keep_on_device: bool = False


def options_for(
    recipe: Recipe,
    *,
    confidence: float | None = None,
    iou: float | None = None,
    max_det: int | None = None,
    classes: Iterable[int | str] | None = None,
    top_k: int = 5,
    keep_on_device: bool = False,
) -> PredictOptions:
    """The recipe's thresholds, with a call's changes.

    A classifier returns its ``top_k`` classes whatever their scores, unless the call itself gives
    a ``confidence``. ``classes`` may hold ids or names. ``keep_on_device`` is a wish: where boxes
    are not decoded on a GPU, results are the ordinary ones.

    Raises:
        UsageError: a value out of range, or an unknown class name.
    """
    if confidence is None:
        confidence = 0.0 if recipe.task == "classify" else recipe.confidence
    return PredictOptions(
        confidence=_share("confidence", confidence),
        iou=_share("iou", recipe.iou if iou is None else iou),
        max_det=_count("max_det", recipe.max_det if max_det is None else max_det),
        classes=None if classes is None else _class_ids(recipe, classes),
        top_k=_count("top_k", top_k),
        keep_on_device=bool(keep_on_device),
    )


def _class_ids(recipe: Recipe, classes: Iterable[int | str]) -> tuple[int, ...]:
    if isinstance(classes, str):
        classes = (classes,)
    out = []
    for entry in classes:
        if isinstance(entry, str):
            if entry not in recipe.labels:
                raise _bad("classes", "class ids or names of the model's labels", entry)
            out.append(recipe.labels.index(entry))
        elif int(entry) == entry and entry >= 0:
            out.append(int(entry))
        else:
            raise _bad("classes", "class ids from 0 on", entry)
    return tuple(dict.fromkeys(out))


def _share(key: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise _bad(key, "a number in 0…1", value)
    return float(value)


def _count(key: str, value: int) -> int:
    if int(value) != value or value < 1:
        raise _bad(key, "an integer above 0", value)
    return int(value)


def _bad(key: str, expected: str, got: object) -> UsageError:
    return UsageError(f"{key}: {expected}", got=repr(got), fix=f"Correct {key}.")
