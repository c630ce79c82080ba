"""Quantizes with NNCF's ONNX back end.

Settings: ``fast_bias_correction``; False is what NNCF calls accurate. All else is its default,
with which activations that are never negative become uint8.
"""

from __future__ import annotations

import nncf
import onnx
from protocol import Job, serve


def quantize(job: Job) -> None:
    """Write the graph that ``nncf.quantize`` makes."""
    model = onnx.load(job.model)
    input_name = model.graph.input[0].name
    tensors = job.tensors()
    quantized = nncf.quantize(
        model,
        nncf.Dataset(tensors, lambda path: {input_name: job.load(path)}),
        subset_size=len(tensors),
        fast_bias_correction=job.settings["fast_bias_correction"],
    )
    onnx.save(quantized, job.output)


if __name__ == "__main__":
    serve(quantize, ("nncf", "onnx", "onnxruntime"))
