"""The two 16-bit floating-point types: what each can hold, and what is not safe in it.

float16 has 11 significant bits and ends at 65504; bfloat16 has 8 and float32's range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

_SQUARES = "sums squares, which overflow at inputs of 256"
_NORM = "normalises by a sum of squares"
_POSITIONS = "positions need more digits"
# Too coarse a grid, in either type.
_COARSE = {
    "CumSum": "a running sum loses its small terms",
    "GridSample": _POSITIONS,
    "RoiAlign": _POSITIONS,
    "Range": "counts in steps",
    "NonMaxSuppression": _POSITIONS,
}
_SMALL_RANGE = {
    "Exp": "exp(x) overflows above x = 11",
    "Pow": "a power leaves float16's range",
    "Reciprocal": "1/x overflows below x = 1.5e-5",
    "ReduceSum": "a long sum overflows",
    "ReduceProd": "a product overflows",
    "ReduceL2": _SQUARES,
    "ReduceSumSquare": _SQUARES,
    "ReduceLogSum": "a long sum overflows",
    "ReduceLogSumExp": "exp(x) overflows above x = 11",
    "LpNormalization": _NORM,
    "LRN": _NORM,
    "MeanVarianceNormalization": _NORM,
    "LayerNormalization": _NORM,
    "RMSNormalization": _NORM,
    "InstanceNormalization": _NORM,
    "GroupNormalization": _NORM,
}


@dataclass(frozen=True)
class HalfType:
    """A 16-bit type.

    Attributes:
        name: as in a decision.
        long_name: as in a sentence.
        onnx_type: its ``TensorProto`` number.
        schema_type: its name in operator schemas.
        largest: finite number.
        integers: up to which it holds each one.
        unsafe: reasons by operator whose result or inner sum leaves its range or grid on ordinary
            inputs.
        opset: the first in which convolutions and pools take it.
    """

    name: str
    long_name: str
    onnx_type: int
    schema_type: str
    largest: float
    integers: int
    unsafe: Mapping[str, str]
    opset: int


FP16 = HalfType(
    *("fp16", "float16", TensorProto.FLOAT16, "tensor(float16)", 65504.0, 2048),
    {**_SMALL_RANGE, **_COARSE},
    1,
)
BF16 = HalfType(
    *("bf16", "bfloat16", TensorProto.BFLOAT16, "tensor(bfloat16)"),
    float(np.uint32(0x7F7F0000).view(np.float32)),
    256,
    {
        **_COARSE,
        "HardSwish": "TensorRT's parser takes no bfloat16 there",
        "ConvTranspose": "TensorRT-RTX's builder finds no bfloat16 kernel",
    },
    22,
)
HALF_TYPES = {half.onnx_type: half for half in (FP16, BF16)}


def rounded_tensor(value: NDArray[np.floating], half: HalfType, name: str) -> TensorProto:
    """A stored tensor with the values rounded to the nearest, ties to even; beyond ``largest``,
    infinity."""
    if half is FP16:
        with np.errstate(over="ignore"):
            return numpy_helper.from_array(value.astype(np.float16), name)
    # NumPy has no bfloat16: it is the upper half of a float32.
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    up = ((bits >> 16) & 1) + np.uint32(0x7FFF)
    is_nan = np.isnan(value)
    upper = np.where(is_nan, np.uint32(0x7FC0), (bits + up) >> 16).astype("<u2")
    tensor = TensorProto(data_type=half.onnx_type, dims=value.shape, name=name)
    tensor.raw_data = upper.tobytes()
    return tensor


def rounded(value: NDArray[np.floating], half: HalfType) -> NDArray[np.float32]:
    """The values after rounding to ``half``."""
    return numpy_helper.to_array(rounded_tensor(value, half, "rounded")).astype(np.float32)
