"""Quantizes with NVIDIA's ModelOpt.

Settings: ``method`` (``max``, ``entropy``). Calibrated on the CPU; all else is its default, with
which what is not int8 becomes float16.
"""

from __future__ import annotations

import numpy as np
from modelopt.onnx.quantization import quantize as quantize_onnx
from protocol import Job, serve


def quantize(job: Job) -> None:
    """Write the graph that ``modelopt.onnx.quantization.quantize`` makes."""
    quantize_onnx(
        str(job.model),
        quantize_mode="int8",
        calibration_data=np.concatenate([job.load(path) for path in job.tensors()]),
        calibration_method=job.settings["method"],
        calibration_eps=["cpu"],
        output_path=str(job.output),
    )


if __name__ == "__main__":
    serve(quantize, ("nvidia-modelopt", "onnx", "onnxruntime-gpu", "torch"))
