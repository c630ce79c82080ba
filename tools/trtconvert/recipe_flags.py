"""What is said about a model's recipe, by flags or a file, and what is found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtconvert.edits import GraphEdits
from visionrt.errors import UsageError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec


@dataclass(frozen=True)
class RecipeFlags:
    """What the user says about the model; None where nothing was said.

    Attributes:
        task, head: see :class:`visionrt.recipe.Recipe`.
        labels: name of a label set, a text file, or the labels themselves.
        preprocess: a preset, a preset with changes, or JSON.
        head_options: overrides what is found, key by key.
        confidence, iou, max_det: thresholds.
        class_agnostic: see :class:`visionrt.recipe.Recipe`.
        edits: what is changed in the graph first.
        sources: by field, what says it where that is not the flag of its name.
    """

    task: str | None = None
    head: str | None = None
    labels: str | tuple[str, ...] | None = None
    preprocess: str | None = None
    head_options: Mapping[str, Any] = field(default_factory=dict)
    confidence: float | None = None
    iou: float | None = None
    max_det: int | None = None
    class_agnostic: bool | None = None
    edits: GraphEdits = field(default_factory=GraphEdits)
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """Where a field that was given comes from."""
        return self.sources.get(name, f"--{name.replace('_', '-')}")

    @property
    def graph_edits(self) -> GraphEdits:
        """``edits``; a preprocess spec that says ``nhwc`` keeps a channels-last input."""
        if self.preprocess is None or PreprocessSpec.parse(self.preprocess).layout == "nchw":
            return self.edits
        return dataclasses.replace(self.edits, channels_first=False)

    def completed(self, said: Mapping[str, Any], source: str) -> RecipeFlags:
        """With what ``said`` holds for fields that are not given."""
        taken = {key: value for key, value in said.items() if getattr(self, key) is None}
        if "head_options" in said:
            taken["head_options"] = {**said["head_options"], **self.head_options}
        sources = {**self.sources, **dict.fromkeys(taken, source)}
        return dataclasses.replace(self, **taken, sources=sources)


@dataclass(frozen=True)
class ImageSource:
    """Images that a preprocess spec may be found by.

    Attributes:
        files: the images.
        labels: accepted class ids by file name; may be empty.
    """

    files: Sequence[Path] = ()
    labels: Mapping[str, frozenset[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundRecipe:
    """A recipe and what speaks for it.

    Attributes:
        recipe: complete.
        reasons: by field, ``preprocess.KEY`` and ``head_options.KEY`` for inner ones.
        confidence: 0…1 by field; of fields that were found, not of defaults.
        ranking: preprocess specs that were tried and their scores, the best first.
    """

    recipe: Recipe
    reasons: Mapping[str, str]
    confidence: Mapping[str, float]
    ranking: Sequence[tuple[str, float]] = ()

    def to_json(self) -> dict[str, Any]:
        """As ``guess -o`` writes it and ``--recipe`` reads it."""
        return {
            "recipe": self.recipe.to_json(),
            "reasons": dict(self.reasons),
            "confidence": {key: round(value, 3) for key, value in self.confidence.items()},
            "ranking": [{"preprocess": key, "score": score} for key, score in self.ranking],
        }


def flags_with_recipe(flags: RecipeFlags, path: Path) -> RecipeFlags:
    """The flags, and for what they leave out the recipe in a file that ``guess -o`` wrote.

    The file may also hold the recipe alone, as an engine file's manifest does. What depends on the
    graph (layout and type of the input) stays the graph's to say.

    Raises:
        UsageError: not such a file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        recipe = Recipe.from_json(value.get("recipe", value))
    except (OSError, UnicodeDecodeError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"a recipe in {path}",
            got=getattr(error, "strerror", None) or str(error),
            fix="Write one with: trtconvert guess MODEL -o recipe.json",
        ) from error
    spec = recipe.preprocess.to_json()
    said: dict[str, Any] = {
        "task": recipe.task,
        "head": recipe.head,
        "labels": recipe.labels or None,
        "preprocess": json.dumps({k: v for k, v in spec.items() if k not in ("layout", "dtype")}),
        "confidence": recipe.confidence,
        "iou": recipe.iou,
        "max_det": recipe.max_det,
        "class_agnostic": recipe.class_agnostic,
        "head_options": recipe.head_options,
    }
    return flags.completed(said, "--recipe")
