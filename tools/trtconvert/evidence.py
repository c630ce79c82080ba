"""What a conversion is judged by: the original model, and images to compare it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto

from trtconvert.calibration.reader import ImageReader, image_files
from trtconvert.options import BuildOptions
from trtconvert.progress import Progress
from trtconvert.verify import MaxDrop, enforce, labels_beside, verify
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.metrics import Agreement, accumulator_for
from visionrt.pipeline import image_input
from visionrt.recipe import Recipe


@dataclass(frozen=True)
class Evidence:
    """The reference and what it is compared on.

    Attributes:
        reference: the original ONNX model, serialized: comparing with it covers every pass.
        recipe: what the answers are and how they compare.
        images: files; with none, synthetic images stand in.
        labels: accepted class ids by file name, for a classifier.
    """

    reference: bytes
    recipe: Recipe
    images: Sequence[Path] = ()
    labels: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def compare(
        self, graph: ModelProto | bytes, progress: Progress, *, optimize: bool = False
    ) -> Agreement:
        """How well a graph agrees with the reference; see :func:`trtconvert.verify.verify`."""
        candidate = graph if isinstance(graph, bytes) else graph.SerializeToString()
        return verify(
            self.reference,
            candidate,
            self.recipe,
            self.images,
            progress,
            labels=self.labels,
            optimize=optimize,
        )

    def check(self, max_drop: MaxDrop | None) -> None:
        """Find out now, not after calibration, that the comparison cannot be made.

        Raises:
            ModelError: the reference does not run; with the node that fails.
            UsageError: ``max_drop`` is for a metric that this task does not have.
        """
        if max_drop is not None:
            metric = accumulator_for(self.recipe.task).metric if self.images else "cosine"
            enforce(Agreement(metric, len(self.images), 1.0), max_drop)
        backend = OnnxRuntimeBackend(self.reference)
        info = image_input(self.recipe, backend.inputs)
        batch = info.shape[0] if isinstance(info.shape[0], int) else 1
        spec = self.recipe.preprocess
        backend.run({info.name: np.zeros(spec.tensor_shape(batch), spec.dtype)})
        backend.close()


def evidence_in(reference: ModelProto, recipe: Recipe, folder: Path) -> Evidence:
    """Evidence on a folder of images; labels are taken from a ``labels.csv`` in or beside it.

    Raises:
        InputDataError: no such folder, no images, or a broken ``labels.csv``.
    """
    labels = labels_beside(folder) if recipe.task == "classify" else {}
    return Evidence(reference.SerializeToString(), recipe, image_files(folder), labels)


def evidence_for(
    reference: ModelProto, recipe: Recipe, options: BuildOptions, warnings: list[str]
) -> Evidence:
    """Evidence on ``--images``, else on the calibration images, else on synthetic ones.

    Raises:
        InputDataError: see :func:`evidence_in`.
    """
    if options.images is not None:
        return evidence_in(reference, recipe, options.images)
    data, calibration = reference.SerializeToString(), options.calibration
    if calibration is None or not calibration.images:
        return Evidence(data, recipe)
    if options.precision in ("int8", "auto"):
        warnings.append("verified on the calibration images; give --images for others")
    reader = ImageReader(calibration.images, recipe.preprocess, count=calibration.count)
    return Evidence(data, recipe, reader.files)
