"""Verifies an engine file again: the graphs inside against the model they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from trtconvert.edits import GraphEdits
from trtconvert.evidence import evidence_in
from trtconvert.load import load_model
from trtconvert.operating_point import fp32_recipe
from trtconvert.passes.emulate_half import emulate_half
from trtconvert.progress import Progress, silent
from trtconvert.verify import MaxDrop, enforce
from visionrt.engine_file import EngineFile
from visionrt.manifest import Manifest
from visionrt.metrics import Agreement
from visionrt.recipe import Recipe


@dataclass(frozen=True)
class Reverified:
    """Agreement of each graph inside an engine file.

    Attributes:
        engine: the file.
        agreements: ``typed`` (what the GPU plans were built from) and ``twin`` (what the CPU runs),
            where they are in the file.
        warnings: sentences for people.
    """

    engine: str
    agreements: Mapping[str, Agreement]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        graphs = {name: found.to_json() for name, found in self.agreements.items()}
        return {"engine": self.engine, **graphs, "warnings": list(self.warnings)}


def reverify(
    engine: Path,
    reference: Path,
    images: Path,
    max_drop: MaxDrop | None = None,
    progress: Progress = silent,
    *,
    edits: GraphEdits | None = None,
) -> Reverified:
    """Compare the graphs of ``engine`` with the model ``reference`` on a folder of images.

    Where the engine was built from a part of the model, ``edits`` says of which.

    Raises:
        AccuracyError: a graph loses more than ``max_drop``.
        EngineFileError: a damaged file.
        ModelError, InputDataError: the reference or the images cannot be used.
    """
    warnings: list[str] = []
    graphs: dict[str, bytes] = {}
    with EngineFile(engine) as file:
        manifest = file.manifest
        is_turned = manifest.recipe.preprocess.layout == "nchw"
        loaded = load_model(reference, replace(edits or GraphEdits(), channels_first=is_turned))
        if loaded.sha256 != manifest.source.get("sha256"):
            warnings.append(
                f"{reference} is not the file that the engine was built from "
                f"({manifest.source.get('file')})"
            )
        if manifest.typed_graph is not None:
            typed = ModelProto.FromString(file.read(manifest.typed_graph))
            graphs["typed"] = emulate_half(typed).SerializeToString()
        if manifest.twin is not None:
            graphs["twin"] = file.read(manifest.twin)
        recipe = fp32_recipe(file)
    evidence = evidence_in(loaded.model, recipe, images)
    evidence.check(max_drop)
    agreements: dict[str, Agreement] = {}
    for name, graph in graphs.items():
        agreements[name] = evidence.compare(
            graph, progress, optimize=name == "twin", confidence=_transferred(manifest, recipe)
        )
        warnings += [w for w in agreements[name].warnings if w not in warnings]
        if max_drop is not None:
            enforce(agreements[name], max_drop)
    return Reverified(str(engine), agreements, tuple(warnings))


def _transferred(manifest: Manifest, recipe: Recipe) -> float | None:
    """The score threshold of the file's graphs where it is another than the model's."""
    confidence = manifest.recipe.confidence
    return None if confidence == recipe.confidence else confidence
