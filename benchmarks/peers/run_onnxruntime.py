"""Quantizes with ONNX Runtime's ``quantize_static``.

Settings: ``method`` (``MinMax``, ``Entropy``, ``Percentile``); ``operators``, a list of operator
types or None for all that it knows; ``float_outputs``, those whose outputs stay float. Both sides
symmetric int8, weights per channel and a float bias, since TensorRT takes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from protocol import Job, serve


class _Tensors(CalibrationDataReader):  # type: ignore[misc]
    """Feeds one tensor at a time, as the quantizer asks for it."""

    def __init__(self, job: Job, input_name: str) -> None:
        self._job = job
        self._input = input_name
        self._left: Iterator[Path] = iter(job.tensors())

    def get_next(self) -> dict[str, Any] | None:
        path = next(self._left, None)
        return None if path is None else {self._input: self._job.load(path)}

    def rewind(self) -> None:
        self._left = iter(self._job.tensors())


def quantize(job: Job) -> None:
    """Write the graph that ``quantize_static`` makes."""
    input_name = onnx.load(job.model, load_external_data=False).graph.input[0].name
    quantize_static(
        job.model,
        job.output,
        _Tensors(job, input_name),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=job.settings["operators"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[job.settings["method"]],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": job.settings.get("float_outputs", []),
            "CalibPercentile": 99.99,
        },
    )


if __name__ == "__main__":
    serve(quantize, ("onnxruntime", "onnx"))
