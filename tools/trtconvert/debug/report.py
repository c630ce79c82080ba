"""From a model to its table of errors by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnx import ModelProto

from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.reader import ImageReader, image_files
from trtconvert.clean import clean_model
from trtconvert.debug.layers import NOT_MAPPED, LayerFigures, measure_layers
from trtconvert.guess import recipe_for
from trtconvert.load import load_model
from trtconvert.precision import typer_for
from trtconvert.progress import Progress, silent
from trtconvert.recipe_flags import RecipeFlags
from trtconvert.shapes import ShapeFlags, image_input_of, input_ranges
from visionrt.recipe import Recipe

IMAGES = 4


@dataclass(frozen=True)
class DebugOptions:
    """What ``trtconvert debug`` takes.

    Attributes:
        model: the ONNX file.
        precision: ``fp16``, ``bf16`` or ``int8``.
        images: folder to measure on.
        count: how many of them, at even steps; all where there are fewer.
        recipe, shapes: as for a build.
        calibration: needed by int8.
    """

    model: Path
    precision: str
    images: Path
    count: int = IMAGES
    recipe: RecipeFlags = field(default_factory=RecipeFlags)
    shapes: ShapeFlags = field(default_factory=ShapeFlags)
    calibration: CalibrationOptions | None = None


@dataclass(frozen=True)
class DebugReport:
    """Errors along a graph.

    Attributes:
        model, precision: what was typed.
        images: how many were run.
        layers: one per node of the clean graph, in its order.
        nodes_by_precision: how many nodes have which precision.
        warnings: sentences for people.
    """

    model: str
    precision: str
    images: int
    layers: Sequence[LayerFigures]
    nodes_by_precision: Mapping[str, int]
    warnings: Sequence[str]

    @property
    def unmapped(self) -> list[LayerFigures]:
        """Nodes whose outputs have no counterpart in the typed graph."""
        return [layer for layer in self.layers if layer.status == NOT_MAPPED]

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types, and ``unmapped`` by node."""
        return {
            "model": self.model,
            "precision": self.precision,
            "images": self.images,
            "nodes_by_precision": dict(self.nodes_by_precision),
            "layers": [dict(vars(layer)) for layer in self.layers],
            "unmapped": {layer.node: layer.note for layer in self.unmapped},
            "warnings": list(self.warnings),
        }


def debug(options: DebugOptions, progress: Progress = silent) -> DebugReport:
    """Type a model's graph as a build does and measure each of its nodes on images; blocks.

    Raises:
        VisionrtError: as a build; see :func:`trtconvert.convert.convert`.
        InputDataError: no images, or none that can be read.
    """
    files = image_files(options.images)
    warnings: list[str] = []
    clean, recipe = _clean(options, warnings)
    typer = typer_for(clean, recipe, options.precision, options.calibration, progress)
    typed = typer.typed()
    batch = image_input_of(clean)[1][0]
    reader = ImageReader(
        files,
        recipe.preprocess,
        count=min(options.count, len(files)),
        batch=batch if isinstance(batch, int) else 1,
    )
    # Evened out for int8, the graph has other numbers inside than the clean one.
    reference = typer.view.model
    layers = measure_layers(reference, typed.measured, typed.decisions, reader, progress)
    return DebugReport(
        str(options.model),
        options.precision,
        len(reader),
        layers,
        typed.nodes_by_precision,
        [*warnings, *typed.warnings, *reader.warnings()],
    )


def _clean(options: DebugOptions, warnings: list[str]) -> tuple[ModelProto, Recipe]:
    loaded = load_model(options.model, options.recipe.graph_edits)
    flags = options.recipe.completed(loaded.told, loaded.told_by)
    recipe, _ = recipe_for(loaded.model, flags, options.shapes)
    ranges = input_ranges(loaded.model, recipe.preprocess, options.shapes)
    keep_batch = not options.shapes.explicit
    return clean_model(loaded.model, ranges, keep_batch=keep_batch, warnings=warnings), recipe
