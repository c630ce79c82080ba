"""What a conversion is judged by: the original model, and images to compare it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto

from trtconvert.calibration.reader import ImageReader, image_files
from trtconvert.heap import trim
from trtconvert.options import BuildOptions
from trtconvert.progress import Progress
from trtconvert.recipe_flags import ImageSource
from trtconvert.verify import MaxDrop, enforce, labels_beside, verify
from trtconvert.weights import WeightFile
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.heads import Frame, head_for
from visionrt.metrics import Agreement, accumulator_for
from visionrt.options import options_for
from visionrt.pipeline import image_input
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe


@dataclass(frozen=True)
class Evidence:
    """The reference and what it is compared on.

    Attributes:
        reference: the original ONNX model, serialized or a file: comparing with it covers every
            pass.
        recipe: what the answers are and how they compare.
        images: files; with none, synthetic images stand in.
        labels: accepted class ids by file name, for a classifier.
        file: where a ``reference`` that is a file lies, and what is compared with it, too.
    """

    reference: bytes | Path
    recipe: Recipe
    images: Sequence[Path] = ()
    labels: Mapping[str, frozenset[int]] = field(default_factory=dict)
    file: WeightFile | None = None

    def kept(self, graph: ModelProto) -> bytes | Path:
        """A graph as a backend takes it: in ``file`` where there is one."""
        return graph.SerializeToString() if self.file is None else self.file.saved(graph)

    def compare(
        self,
        graph: ModelProto | bytes | Path,
        progress: Progress,
        *,
        optimize: bool = False,
        confidence: float | None = None,
    ) -> Agreement:
        """How well a graph agrees with the reference; see :func:`trtconvert.verify.verify`."""
        candidate = self.kept(graph) if isinstance(graph, ModelProto) else graph
        try:
            return verify(
                self.reference,
                candidate,
                self.recipe,
                self.images,
                progress,
                labels=self.labels,
                optimize=optimize,
                confidence=confidence,
            )
        finally:
            trim()

    def check(self, max_drop: MaxDrop | None) -> None:
        """Find out now, not after calibration, that the comparison cannot be made.

        Raises:
            ModelError: the reference does not run (with the node that fails), or its outputs do
                not fit the head.
            UsageError: bad head options, or ``max_drop`` for a metric that this task does not have.
        """
        if max_drop is not None:
            metric = accumulator_for(self.recipe.task).metric if self.images else "cosine"
            enforce(Agreement(metric, len(self.images), 1.0), max_drop)
        backend = OnnxRuntimeBackend(self.reference)
        try:
            head = head_for(self.recipe, backend.outputs)
            info = image_input(self.recipe, backend.inputs)
            batch = info.shape[0] if isinstance(info.shape[0], int) else 1
            size = self.recipe.preprocess.size
            preprocess = Preprocessor(self.recipe.preprocess)
            black = preprocess([np.zeros((*size, 3), np.uint8)])
            outputs = backend.run({info.name: np.repeat(black, batch, axis=0)})
            # An output of a batch of one may have no batch axis.
            first = {n: array[:1] for n, array in outputs.items()} if batch > 1 else outputs
            frame = Frame(size, preprocess.geometry(*size))
            head.decode(first, [frame], options_for(self.recipe))
        finally:
            backend.close()
            trim()


def image_source(*folders: Path | Sequence[Path] | None) -> ImageSource:
    """Images to find a preprocess spec by: of the first folder or list that is not None.

    Raises:
        InputDataError: no such folder, no images, or a broken ``labels.csv``.
    """
    for folder in folders:
        if folder is not None:
            labels = labels_beside(folder) if isinstance(folder, Path) else {}
            return ImageSource(image_files(folder), labels)
    return ImageSource()


def images_to_judge_by(options: BuildOptions) -> ImageSource:
    """``--images``, else the calibration images; none where the spec is given.

    Raises:
        InputDataError: see :func:`image_source`.
    """
    if options.recipe.preprocess is not None:
        return ImageSource()
    calibration = options.calibration
    return image_source(options.images, calibration.images or None if calibration else None)


def evidence_in(
    reference: ModelProto, recipe: Recipe, folder: Path, file: WeightFile | None = None
) -> Evidence:
    """Evidence on a folder of images; labels are taken from a ``labels.csv`` in or beside it.

    Args:
        file: to keep graphs in; None holds the reference in memory.

    Raises:
        InputDataError: no such folder, no images, or a broken ``labels.csv``.
    """
    labels = labels_beside(folder) if recipe.task == "classify" else {}
    kept = reference.SerializeToString() if file is None else file.saved(reference)
    return Evidence(kept, recipe, image_files(folder), labels, file)


def evidence_for(
    reference: ModelProto,
    recipe: Recipe,
    options: BuildOptions,
    warnings: list[str],
    file: WeightFile,
) -> Evidence:
    """Evidence on ``--images``, else on the calibration images, else on synthetic ones.

    Raises:
        InputDataError: see :func:`evidence_in`.
    """
    if options.images is not None:
        return evidence_in(reference, recipe, options.images, file)
    kept, calibration = file.saved(reference), options.calibration
    if calibration is None or not calibration.images:
        return Evidence(kept, recipe, file=file)
    if options.precision in ("int8", "auto"):
        warnings.append("verified on the calibration images; give --images for others")
    reader = ImageReader(calibration.images, recipe.preprocess, count=calibration.count)
    return Evidence(kept, recipe, reader.files, file=file)
