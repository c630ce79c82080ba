"""Settles the sizes of the graph's inputs and outputs.

1. Every size of an input but the batch is written as a number. The preprocess spec has one size,
   and builders fail on float16 grids with a dynamic height or width.
2. A symbolic batch is called ``batch``, and stays symbolic where its range says so: the CPU twin
   then takes any batch, a plan the range it was built for. A range of one size fixes it.
3. Symbolic sizes of outputs are inferred afresh. Equal names must mean equal sizes (builders take
   it literally), so a size that inference does not know gets a name of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import ModelProto

from trtconvert.graph import image_inputs, one_line
from trtconvert.targets.base import ShapeRange
from trtconvert.weights import with_values_of, without_large
from visionrt.errors import ModelError

BATCH = "batch"


def settle_dims(
    model: ModelProto, ranges: Mapping[str, ShapeRange], *, keep_batch: bool
) -> ModelProto:
    """The model with the sizes above; the argument is changed.

    Args:
        model: with one range per input; fixed sizes equal the range's.
        ranges: by input name.
        keep_batch: whether a symbolic batch stays one even when its range has one size.

    Raises:
        ModelError: the graph does not work with these sizes.
    """
    batch_names: set[str] = set()
    for value in image_inputs(model.graph):
        size = ranges[value.name]
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            symbolic = not dim.HasField("dim_value")
            one_size = size.min[axis] == size.max[axis]
            if axis == 0 and symbolic and (keep_batch or not one_size):
                batch_names.add(dim.dim_param)
                dim.dim_param = BATCH
            else:
                dim.dim_value = size.opt[axis]
    batch_names.discard("")
    for value in model.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                is_batch = axis == 0 and dim.dim_param in batch_names
                dim.Clear()
                if is_batch:
                    dim.dim_param = BATCH
    del model.graph.value_info[:]
    inferred = infer_shapes(model)
    _name_unknown(inferred)
    return inferred


def infer_shapes(model: ModelProto) -> ModelProto:
    """A copy with the shapes of inner values and outputs.

    Raises:
        ModelError: shapes that contradict each other, with the node.
    """
    try:
        # What goes through it is serialized and parsed, twice.
        inferred = onnx.shape_inference.infer_shapes(
            without_large(model), strict_mode=True, data_prop=True
        )
        return with_values_of(inferred, model)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(
            "a graph whose shapes fit together at this input size",
            got=one_line(error),
            fix="Give the input size the model was made for (--shapes), or export it again.",
        ) from error


def _name_unknown(model: ModelProto) -> None:
    for value in model.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and dim.dim_param != BATCH:
                dim.dim_param = f"{value.name}_{axis}"
