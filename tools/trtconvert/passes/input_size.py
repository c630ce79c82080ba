"""Gives the image input another height and width, where the graph works with it.

1. The sizes of the image input are written; what was noted of other shapes is dropped, and the
   outputs' sizes are inferred afresh.
2. The graph must fit together at the new size, and run: sizes baked into a Reshape, a grid of
   constants or a fully connected layer do not change, and stop it.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper

from trtconvert.graph import image_inputs
from trtconvert.passes.dims import infer_shapes
from trtconvert.shapes import image_input_of
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import ModelError, UsageError

_CHANNELS = (1, 3)


def with_input_size(model: ModelProto, size: tuple[int, int]) -> ModelProto:
    """A copy that takes images of ``size`` (height, width).

    Raises:
        ModelError: the graph does not work with it, and where it breaks.
        UsageError: it is not plain which sizes are height and width.
    """
    name, shape = image_input_of(model)
    if shape[1] in _CHANNELS:
        axes = (2, 3)
    elif shape[3] in _CHANNELS:
        axes = (1, 2)
    else:
        raise UsageError(
            "an image input of 1 or 3 channels, to change its size",
            got=f"{name!r} of shape {list(shape)}",
            fix="Leave --input-size out, and give --shapes.",
        )
    copy = ModelProto()
    copy.CopyFrom(model)
    image = image_inputs(copy.graph)[0]
    for axis, side in zip(axes, size, strict=True):
        image.type.tensor_type.shape.dim[axis].dim_value = side
    for value in copy.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del copy.graph.value_info[:]
    try:
        sized = infer_shapes(copy)
        _run(sized, name)
    except ModelError as error:
        raise ModelError(
            f"a graph that works at {size[0]}x{size[1]}",
            got=error.got,
            fix="It has its own size baked in: export it at this size.",
        ) from error
    return sized


def _run(model: ModelProto, name: str) -> None:
    value = image_inputs(model.graph)[0]
    shape = [
        d.dim_value if d.HasField("dim_value") else 1 for d in value.type.tensor_type.shape.dim
    ]
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    backend = OnnxRuntimeBackend(model.SerializeToString())
    try:
        backend.run({name: np.zeros(shape, dtype)})
    finally:
        backend.close()
