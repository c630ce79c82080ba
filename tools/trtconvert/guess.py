"""Finds a model's recipe: what the flags say, then its metadata, its graph, and images.

Nothing is guessed silently: every field has a reason, and where the graph leaves a choice that
would change results (which head, how images were normalised), the user is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from onnx import ModelProto

from trtconvert.graph import tensor_info
from trtconvert.head_guess import LIKELY, HeadGuess, Outputs, last_operators, separable_outputs
from trtconvert.head_rules import classifier_guess, guess_head, segmentation
from trtconvert.input_spec import spec_from_text
from trtconvert.metadata import recipe_in, spec_text
from trtconvert.passes.dims import infer_shapes, settle_dims
from trtconvert.passes.slim import slim
from trtconvert.preprocessing.choices import known_spec
from trtconvert.preprocessing.detect import detect_spec
from trtconvert.progress import Progress, silent
from trtconvert.recipe_flags import FoundRecipe, ImageSource, RecipeFlags
from trtconvert.shapes import ShapeFlags, input_ranges
from visionrt.errors import UsageError
from visionrt.labels import read_labels
from visionrt.recipe import HEADS, HEADS_BY_TASK, TASKS, Recipe
from visionrt.spec import PRESETS, PreprocessSpec

__all__ = ["FoundRecipe", "ImageSource", "RecipeFlags", "find_recipe", "recipe_for"]

_METADATA = "the model's metadata"
# Label sets that go with a number of classes, when nothing else names them.
_USUAL_LABELS = {
    ("classify", 1000): "imagenet1000",
    ("detect", 80): "coco80",
    ("detect", 90): "coco90",
    ("detect", 91): "coco91",
}


def recipe_for(
    model: ModelProto, flags: RecipeFlags, shapes: ShapeFlags | None = None
) -> tuple[Recipe, dict[str, str]]:
    """The recipe of a model by flags, metadata and structure, and a reason per field.

    Raises:
        UsageError, ModelError: see :func:`find_recipe`.
    """
    found = find_recipe(model, flags, shapes)
    return found.recipe, dict(found.reasons)


def find_recipe(
    model: ModelProto,
    flags: RecipeFlags,
    shapes: ShapeFlags | None = None,
    images: ImageSource | None = None,
    progress: Progress = silent,
) -> FoundRecipe:
    """The recipe of a model, with a reason and a confidence per field.

    Args:
        model: the float32 model.
        flags, shapes: as given on the command line.
        images: run through the model where nothing else says how it is fed.
        progress: told of each image.

    Raises:
        UsageError: something is missing or ambiguous; the message lists the choices.
        ModelError: the model has a task or an interface that is not supported.
    """
    shapes = shapes or ShapeFlags()
    metadata = recipe_in(model)
    reasons: dict[str, str] = {}
    sure: dict[str, float] = {}
    spec, is_given = _given_spec(model, flags, shapes, metadata, reasons)
    guess = _head(_outputs(model, spec, shapes), flags, metadata)
    said = metadata is not None and guess.reason == _METADATA
    for key in ("task", "head"):
        given = getattr(flags, key) is not None
        reasons[key] = flags.source(key) if given else guess.reason
        sure[key] = 1.0 if given or said else guess.confidence
    options = {**guess.options, **flags.head_options}
    for key in options:
        given = key in flags.head_options
        reason = flags.source("head_options") if given else guess.why.get(key, "goes with the head")
        reasons[f"head_options.{key}"] = reason
        sure[f"head_options.{key}"] = 1.0 if given or said else guess.confidence
    labels = _labels(flags, metadata, guess, options, reasons)
    sure |= {"labels": LIKELY if "as many as" in reasons["labels"] else 1.0} if labels else {}
    names = ("confidence", "iou", "max_det", "class_agnostic")
    given_fields = {key: v for key in names if (v := getattr(flags, key)) is not None}
    reasons |= {key: flags.source(key) for key in given_fields}
    for key in ("confidence", "iou") if metadata is not None else ():
        if key not in given_fields and getattr(metadata, key) != Recipe.__dict__[key]:
            given_fields[key], reasons[key] = getattr(metadata, key), _METADATA
    recipe = Recipe(
        guess.task, guess.head, spec, labels=labels, head_options=options, **given_fields
    )
    ranking: Sequence[tuple[str, float]] = ()
    if is_given:
        sure |= {key: 1.0 for key in reasons if key.startswith("preprocess")}
    else:
        recipe, ranking = _found_spec(model, recipe, images, (reasons, sure), progress)
    return FoundRecipe(recipe, reasons, sure, ranking)


def _given_spec(
    model: ModelProto,
    flags: RecipeFlags,
    shapes: ShapeFlags,
    metadata: Recipe | None,
    reasons: dict[str, str],
) -> tuple[PreprocessSpec, bool]:
    """The spec of flags or metadata, else one that only has the graph's geometry; and which."""
    text, reason = flags.preprocess, flags.source("preprocess")
    if text is None and metadata is not None:
        text, reason = spec_text(model, metadata), _METADATA
    spec, found = spec_from_text(text or "none", model, shapes)
    if text is not None:
        reasons["preprocess"] = reason
    reasons |= {f"preprocess.{key}": value for key, value in found.items()}
    return spec, text is not None


def _found_spec(
    model: ModelProto,
    recipe: Recipe,
    images: ImageSource | None,
    notes: tuple[dict[str, str], dict[str, float]],
    progress: Progress,
) -> tuple[Recipe, Sequence[tuple[str, float]]]:
    """The recipe with a spec that its head or images tell, and the specs that were tried."""
    reasons, sure = notes
    for key in ("size", "layout", "dtype"):
        sure[f"preprocess.{key}"] = 1.0
    known = known_spec(recipe.head, recipe.head_options)
    if known is not None:
        fields, reason = known
        if recipe.preprocess.dtype == "uint8":
            fields = fields | {"mean": [0] * 3, "std": [1] * 3}
        reasons["preprocess"] = reason
        sure |= {f"preprocess.{key}": sure["head"] for key in fields}
        spec = recipe.preprocess.replace(**fields)
        return dataclasses.replace(recipe, preprocess=spec), ()
    if images is None or not images.files:
        raise UsageError(
            "--preprocess, since nothing in the file says for sure how images were prepared",
            got="none",
            fix=f"Give a preset ({', '.join(PRESETS)}), with changes as in tf,std=255, or JSON; "
            "or --images FOLDER, best with a labels.csv, to find it by.",
        )
    found = detect_spec(model, recipe, images.files, images.labels, progress)
    reasons |= {f"preprocess.{key}": reason for key, reason in found.reasons.items()}
    sure |= {f"preprocess.{key}": value for key, value in found.confidence.items()}
    return dataclasses.replace(recipe, preprocess=found.spec), found.ranking


def _outputs(model: ModelProto, spec: PreprocessSpec, shapes: ShapeFlags) -> Outputs:
    ranges = input_ranges(model, spec, shapes)
    copy = ModelProto.FromString(model.SerializeToString())
    sized = settle_dims(copy, ranges, keep_batch=True)
    infos = tuple(tensor_info(value) for value in sized.graph.output)
    if any(not isinstance(size, int) for info in infos for size in info.shape[1:]):
        # Sizes that nodes compute from the image's are numbers once those nodes are folded.
        copy = ModelProto.FromString(model.SerializeToString())
        sized = infer_shapes(slim(settle_dims(copy, ranges, keep_batch=False), []))
        infos = tuple(tensor_info(value) for value in sized.graph.output)
    graph = sized.graph
    return Outputs(infos, spec.size, last_operators(graph), separable_outputs(graph))


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
    if guess is not None and metadata is not None and _is_multi_label(guess, metadata):
        guess = dataclasses.replace(guess, options={**guess.options, "activation": "sigmoid"})
    if guess is None:
        raise _ask(outputs, "no head that its outputs give away")
    if flags.head is not None and flags.head != guess.head:
        # The shapes say otherwise: the user knows, and gives the options.
        known = {"output": guess.options["output"]} if "output" in guess.options else {}
        return HeadGuess(task or guess.task, flags.head, known, "--head", guess.classes)
    if flags.head is None and guess.ambiguous_with:
        raise _ask(outputs, f"{guess.reason}, which fits {' and '.join(guess.ambiguous_with)}")
    for option, choices in guess.missing.items():
        if option not in flags.head_options and option not in guess.options:
            raise UsageError(
                f"--head-options with {option}, which the outputs leave open",
                got=guess.reason,
                fix=f"Give {option}: {choices}.",
            )
    return guess


def _is_multi_label(guess: HeadGuess, metadata: Recipe) -> bool:
    """Whether a sigmoid is to be applied, which the graph has not done already."""
    is_open = guess.head == "classifier" and guess.options["activation"] == "softmax"
    return is_open and metadata.head_options.get("activation") == "sigmoid"


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
    return HeadGuess(metadata.task, metadata.head, options, _METADATA)


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
        named = flags.labels
        labels = read_labels(named) if isinstance(named, str) else named
        reasons["labels"] = flags.source("labels")
    elif metadata is not None and metadata.labels:
        labels, reasons["labels"] = metadata.labels, _METADATA
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
