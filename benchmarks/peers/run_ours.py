"""Quantizes with this project's converter.

Settings: fields of ``CalibrationOptions``. It reads the photos rather than the tensors that were
made of them, so decoding and preprocessing count against it.
"""

from __future__ import annotations

import onnx
from protocol import Job, serve

from trtconvert.calibration.options import CalibrationOptions
from trtconvert.precision import typed_graph
from trtconvert.weights import WeightFile
from visionrt.recipe import Recipe


def quantize(job: Job) -> None:
    """Write the typed graph: int8 with a float16 remainder."""
    options = CalibrationOptions(images=job.photos, count=len(job.photos), **job.settings)
    file = WeightFile()
    clean, recipe = file.load(job.model), Recipe.from_json(job.recipe)
    typed = typed_graph(clean, recipe, "int8", options, weight_file=file)
    onnx.save(typed.model, job.output)


if __name__ == "__main__":
    serve(quantize, ("onnxruntime", "onnx", "numpy"))
