"""Audits calibration images: what would make int8 ranges, or the whole conversion, wrong.

Rules on images alone are in ``image_rules.py``, those that ask the model in ``feeding.py``; here
are those on preprocess specs. One pass over the images for thumbnails, one over at most 96 of them
through the model; one image in memory at a time, 768 bytes kept per image. Deterministic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtconvert.calibration.answers import AnswerReader
from trtconvert.calibration.feeding import feeding_findings
from trtconvert.calibration.findings import Finding
from trtconvert.calibration.image_rules import image_findings, overlap
from trtconvert.calibration.reader import ImageReader
from trtconvert.calibration.table import table_spec
from trtconvert.calibration.thumbnails import Thumbnails, thumbnails_of
from trtconvert.heap import trim
from trtconvert.progress import Progress, silent
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.engine_file import EngineFile
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec


@dataclass(frozen=True)
class Audit:
    """What was looked at, and what was found.

    Attributes:
        images: calibration images that could be read.
        findings: the most fundamental first.
    """

    images: int
    findings: tuple[Finding, ...]

    @property
    def warnings(self) -> list[str]:
        """One sentence per finding."""
        return [finding.message for finding in self.findings]

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        return {"images": self.images, "findings": [f.to_json() for f in self.findings]}


def audit(
    model: bytes | Path,
    recipe: Recipe,
    calibration: ImageReader,
    progress: Progress = silent,
    *,
    images: ImageReader | None = None,
) -> Audit:
    """Audit the images that ``calibration`` would read.

    Args:
        model: the float32 ONNX model, serialized or a file.
        recipe: its preprocess spec is judged, too.
        calibration: of the images to calibrate on.
        progress: called after each image.
        images: of the images to verify on; they should be others.

    Raises:
        ModelError: the model does not run, or does not fit the recipe.
    """
    thumbnails = thumbnails_of(calibration.files, progress)
    found = image_findings(thumbnails)
    if images is not None and images.files != calibration.files:
        found += overlap(thumbnails, thumbnails_of(images.files, progress, "Auditing --images"))
    return Audit(len(thumbnails), (*_of_model(model, recipe, thumbnails, progress), *found))


def _of_model(
    model: bytes | Path, recipe: Recipe, thumbnails: Thumbnails, progress: Progress
) -> list[Finding]:
    backend = OnnxRuntimeBackend(model)
    try:
        reader = AnswerReader(backend, recipe)
        return feeding_findings(reader, recipe, thumbnails.files, progress)
    finally:
        backend.close()
        trim()


def spec_findings(
    spec: PreprocessSpec, *, ranges: Path | None = None, engine: Path | None = None
) -> list[Finding]:
    """``spec-differs``: a table of ranges or an engine file was made for another spec.

    Raises:
        UsageError: ``ranges`` is no table of ranges.
        EngineFileError: ``engine`` is no engine file.
    """
    found = []
    if ranges is not None:
        stored = table_spec(ranges)
        # Tables of earlier versions do not say.
        if stored is not None:
            found += _differing(spec, stored, f"the ranges in {ranges.name} were measured")
    if engine is not None:
        with EngineFile(engine) as file:
            stored = file.manifest.recipe.preprocess.to_json()
        found += _differing(spec, stored, f"{engine.name} feeds its model")
    return found


def _differing(spec: PreprocessSpec, stored: Mapping[str, Any], who: str) -> list[Finding]:
    current = spec.to_json()
    keys = [key for key in sorted({*current, *stored}) if current.get(key) != stored.get(key)]
    if not keys:
        return []
    parts = ", ".join(f"{key} {stored.get(key)} instead of {current.get(key)}" for key in keys)
    text = f"{who} with another preprocess spec: {parts}; use one spec for both"
    return [Finding("spec-differs", text)]
