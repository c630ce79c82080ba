"""Halves an ONNX file: large float32 weights are stored as float16, each behind a Cast.

The graph still computes in float32; only the stored weights are rounded. That is how the models in
tests/data were made small enough for a repository. ``shrink_onnx.py IN.onnx OUT.onnx``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST_ELEMENTS = 256


def shrink(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace float32 initializers of at least SMALLEST_ELEMENTS by float16 ones with a Cast."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST_ELEMENTS:
            continue
        name = tensor.name
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}.f16")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def main(source: str, target: str) -> None:
    """Shrink one file and check the result."""
    small = shrink(onnx.load(source))
    onnx.checker.check_model(small, full_check=True)
    Path(target).write_bytes(small.SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])
