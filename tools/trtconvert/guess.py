"""Finds a model's recipe: what the flags say, then its metadata, then the shapes of its graph.

Nothing is guessed silently: every field has a reason, and where the graph leaves a choice that
would change results (which head, how images were normalised), the user is asked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

from trtconvert.graph import tensor_info
from trtconvert.head_guess import HeadGuess, Outputs, last_operators
from trtconvert.head_rules import classifier_guess, guess_head, segmentation
from trtconvert.input_spec import spec_from_text
from trtconvert.metadata import recipe_in
from trtconvert.passes.dims import settle_dims
from trtconvert.shapes import ShapeFlags, input_ranges
from visionrt.errors import UsageError
from visionrt.labels import read_labels
from visionrt.recipe import HEADS, HEADS_BY_TASK, TASKS, Recipe
from visionrt.spec import PRESETS, PreprocessSpec

# Label sets that go with a number of classes, when nothing else names them.
_USUAL_LABELS = {
    ("classify", 1000): "imagenet1000",
    ("detect", 80): "coco80",
    ("detect", 91): "coco91",
}


@dataclass(frozen=True)
class RecipeFlags:
    """What the user says about the model; None where nothing was said.

    Attributes:
        task, head: see :class:`visionrt.recipe.Recipe`.
        labels: name of a label set, or a text file.
        preprocess: a preset, a preset with changes, or JSON.
        head_options: overrides what is found, key by key.
        confidence, iou, max_det: thresholds.
    """

    task: str | None = None
    head: str | None = None
    labels: str | None = None
    preprocess: str | None = None
    head_options: Mapping[str, Any] = field(default_factory=dict)
    confidence: float | None = None
    iou: float | None = None
    max_det: int | None = None


def recipe_for(
    model: ModelProto, flags: RecipeFlags, shapes: ShapeFlags | None = None
) -> tuple[Recipe, dict[str, str]]:
    """The recipe of a model, and a reason per field.

    Raises:
        UsageError: something is missing or ambiguous; the message lists the choices.
        ModelError: the model has a task or an interface that is not supported.
    """
    shapes = shapes or ShapeFlags()
    metadata = recipe_in(model)
    reasons: dict[str, str] = {}
    spec = _preprocess(model, flags, shapes, metadata, reasons)
    guess = _head(_outputs(model, spec, shapes), flags, metadata)
    reasons["task"] = "--task" if flags.task else guess.reason
    reasons["head"] = "--head" if flags.head else guess.reason
    for key in guess.options:
        reasons[f"head_options.{key}"] = guess.why.get(key, "goes with the head")
    for key in flags.head_options:
        reasons[f"head_options.{key}"] = "--head-options"
    options = {**guess.options, **flags.head_options}
    labels = _labels(flags, metadata, guess, options, reasons)
    thresholds = {
        key: value
        for key in ("confidence", "iou", "max_det")
        if (value := getattr(flags, key)) is not None
    }
    reasons |= {key: f"--{key.replace('_', '-')}" for key in thresholds}
    recipe = Recipe(guess.task, guess.head, spec, labels=labels, head_options=options, **thresholds)
    return recipe, reasons


def _preprocess(
    model: ModelProto,
    flags: RecipeFlags,
    shapes: ShapeFlags,
    metadata: Recipe | None,
    reasons: dict[str, str],
) -> PreprocessSpec:
    text, reason = flags.preprocess, "--preprocess"
    if text is None and metadata is not None:
        # Layout and type are the graph's to say: exports differ in them.
        fields = metadata.preprocess.to_json()
        text = json.dumps({key: fields[key] for key in fields if key not in ("layout", "dtype")})
        reason = "the model's metadata"
    if text is None:
        raise UsageError(
            "--preprocess, since nothing in the file says how images were prepared in training",
            got="none",
            fix=f"Give a preset ({', '.join(PRESETS)}), with changes as in tf,std=255, or JSON.",
        )
    spec, found = spec_from_text(text, model, shapes)
    reasons["preprocess"] = reason
    reasons |= {f"preprocess.{key}": value for key, value in found.items()}
    return spec


def _outputs(model: ModelProto, spec: PreprocessSpec, shapes: ShapeFlags) -> Outputs:
    ranges = input_ranges(model, spec, shapes)
    copy = ModelProto.FromString(model.SerializeToString())
    sized = settle_dims(copy, ranges, keep_batch=True)
    infos = tuple(tensor_info(value) for value in sized.graph.output)
    return Outputs(infos, spec.size, last_operators(sized.graph))


def _head(outputs: Outputs, flags: RecipeFlags, metadata: Recipe | None) -> HeadGuess:
    task = flags.task or (metadata.task if metadata is not None else None)
    if task is not None and task not in TASKS:
        raise UsageError(f"a task: {' | '.join(TASKS)}", got=task, fix="Name one of them.")
    if flags.head is not None and flags.head not in HEADS:
        raise UsageError(f"a head: {' | '.join(HEADS)}", got=flags.head, fix="Name one of them.")
    guess = guess_head(outputs)
    if metadata is not None and flags.task is None and flags.head is None:
        guess = _by_metadata(guess, metadata)
    if task is None and flags.head is not None:
        task = next(task for task, heads in HEADS_BY_TASK.items() if flags.head in heads)
    if task is not None and (guess is None or guess.task != task):
        guess = _of_task(outputs, task, flags)
    if guess is None:
        raise _ask(outputs, "no head that its outputs give away")
    if flags.head is not None and flags.head != guess.head:
        # The shapes say otherwise: the user knows, and gives the options.
        known = {"output": guess.options["output"]} if "output" in guess.options else {}
        return HeadGuess(task or guess.task, flags.head, known, "--head", guess.classes)
    if flags.head is None and guess.ambiguous_with:
        raise _ask(outputs, f"{guess.reason}, which fits {' and '.join(guess.ambiguous_with)}")
    return guess


def _by_metadata(guess: HeadGuess | None, metadata: Recipe) -> HeadGuess | None:
    """What the shapes say of the metadata's task; where they say another, the metadata's word."""
    if guess is not None and guess.head == metadata.head:
        said = {**metadata.head_options, **guess.options}
        return dataclasses.replace(guess, options=said, ambiguous_with=())
    if guess is not None and guess.task == metadata.task and not guess.ambiguous_with:
        return guess  # older exporters did not write that boxes are final
    if metadata.task == "classify":
        return guess  # the graph says how many classes there are, and what it ends in
    options = dict(metadata.head_options)
    return HeadGuess(metadata.task, metadata.head, options, "the model's metadata")


def _of_task(outputs: Outputs, task: str, flags: RecipeFlags) -> HeadGuess | None:
    """A head when the task is known but the shapes alone did not give it away."""
    if task == "classify" and len(outputs.infos) == 1:
        return classifier_guess(outputs, "--task classify, and one output")
    if task == "segment" and (found := segmentation(outputs)):
        return found
    heads = HEADS_BY_TASK[task]
    if flags.head is not None or len(heads) == 1:
        return HeadGuess(task, flags.head or heads[0], {}, f"--task {task}")
    return None


def _labels(
    flags: RecipeFlags,
    metadata: Recipe | None,
    guess: HeadGuess,
    options: dict[str, Any],
    reasons: dict[str, str],
) -> tuple[str, ...]:
    classes = guess.classes
    if guess.task == "classify" and classes is not None:
        classes -= int(options.get("offset", 0))
    if flags.labels is not None:
        labels, reasons["labels"] = read_labels(flags.labels), "--labels"
    elif metadata is not None and metadata.labels:
        labels, reasons["labels"] = metadata.labels, "the model's metadata"
    elif classes is not None and (usual := _USUAL_LABELS.get((guess.task, classes))):
        labels = read_labels(usual)
        reasons["labels"] = f"{classes} classes, as many as {usual} has"
    else:
        return ()
    if classes is not None and len(labels) != classes:
        raise UsageError(
            f"{classes} labels, as many as the model has classes",
            got=f"{len(labels)}",
            fix="Give the label set the model was trained with (--labels NAME|FILE).",
        )
    return labels


def _ask(outputs: Outputs, got: str) -> UsageError:
    shapes = ", ".join(str(info) for info in outputs.infos)
    choices = ", ".join(f"{task} ({' | '.join(heads)})" for task, heads in HEADS_BY_TASK.items())
    return UsageError(
        "--task and --head, since the outputs leave a choice",
        got=f"{got}: {shapes}",
        fix=f"Give --task and --head: {choices}.",
    )
