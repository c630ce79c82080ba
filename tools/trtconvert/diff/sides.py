"""Opens what is compared: engine files, or an engine file and an ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from trtconvert.edits import GraphEdits
from trtconvert.load import load_model
from trtconvert.operating_point import fp32_recipe
from trtconvert.pair import Side
from trtconvert.passes.emulate_half import emulate_half
from visionrt.engine_file import EngineFile
from visionrt.errors import EngineFileError, UsageError
from visionrt.recipe import Recipe


@dataclass(frozen=True)
class Source:
    """One side of a comparison.

    Attributes:
        path: of the file.
        what: which graph of it runs, and its precision.
        graph: that graph, serialized.
        recipe: the file's, or the other side's where it has none.
        optimize: whether the graph may be rewritten: not where its roundings are what counts.
    """

    path: Path
    what: str
    graph: bytes
    recipe: Recipe
    optimize: bool

    def open(self, confidence: float | None) -> Side:
        """Load the graph; see :class:`trtconvert.pair.Side`."""
        return Side(self.graph, self.recipe, optimize=self.optimize, confidence=confidence)


def open_sources(a: Path, b: Path, *, typed: bool) -> tuple[Source, Source]:
    """Both sides. An ONNX model runs as it is, with the recipe of the other side.

    Args:
        a, b: engine files (``*.onnx`` is a model); at least one must be.
        typed: run the engine files' typed graphs, which GPU plans are built from, with their
            float16 roundings written out, in place of their CPU twins.

    Raises:
        UsageError: two models, or sides of different tasks.
        EngineFileError: a damaged file, or one without the graph that is asked for.
        ModelError, InputDataError: the model cannot be used.
    """
    are_models = [path.suffix.lower() == ".onnx" for path in (a, b)]
    if all(are_models):
        raise UsageError(
            "an engine file among the two: it says how images go in and answers come out",
            got=f"{a} and {b}",
            fix="Build one of them first: trtconvert build MODEL.onnx -o NAME.engine --target cpu",
        )
    engines = [
        None if is_model else _engine(path, typed=typed)
        for path, is_model in zip((a, b), are_models, strict=True)
    ]
    engine = a if are_models[1] else b
    with EngineFile(engine) as file:
        recipe = fp32_recipe(file)
    first, second = (
        source or _model(path, recipe) for path, source in zip((a, b), engines, strict=True)
    )
    if first.recipe.task != second.recipe.task:
        raise UsageError(
            "two engines of one task",
            got=f"{first.recipe.task} and {second.recipe.task}",
            fix="Compare a detector with a detector.",
        )
    return first, second


def _engine(path: Path, *, typed: bool) -> Source:
    with EngineFile(path) as file:
        manifest = file.manifest
        member = manifest.typed_graph if typed else manifest.twin
        if member is None:
            raise EngineFileError(
                f"a {'typed graph' if typed else 'CPU twin'} in {path}",
                got="none",
                fix="Build it with --target cpu."
                if typed
                else "Build it with --target cpu too, or compare the typed graphs with --typed.",
            )
        data = file.read(member)
    if not typed:
        return Source(path, f"CPU twin, {manifest.twin_precision}", data, manifest.recipe, True)
    graph = emulate_half(ModelProto.FromString(data)).SerializeToString()
    return Source(path, f"typed graph, {manifest.precision}", graph, manifest.recipe, False)


def _model(path: Path, recipe: Recipe) -> Source:
    # Its input is as the engine's, which may have lost a transpose.
    edits = GraphEdits(channels_first=recipe.preprocess.layout == "nchw")
    model = load_model(path, edits).model
    return Source(path, "ONNX model", model.SerializeToString(), recipe, True)
