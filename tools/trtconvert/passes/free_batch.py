"""Lets a graph that was exported for one image take batches, where it can.

1. The first size of the image input, 1 in the graph, becomes symbolic.
2. A constant target of a ``Reshape`` that begins with 1 keeps the first size of its input instead,
   where that is 1 as well.
3. The result is taken only if two images at once give what each gives alone; see ``batching.py``.
"""

from __future__ import annotations

from onnx import ModelProto, numpy_helper

from trtconvert.batching import takes_batches
from trtconvert.graph import image_inputs, shape_of
from trtconvert.graph_view import FreshNames, attribute
from trtconvert.passes.dims import BATCH, infer_shapes
from trtconvert.passes.fold import fold
from visionrt.errors import ModelError


def with_free_batch(model: ModelProto) -> ModelProto:
    """The model by the rules above: a copy, or ``model`` where they do not apply."""
    inputs = image_inputs(model.graph)
    shape = shape_of(inputs[0]) if len(inputs) == 1 else ()
    if len(shape) != 4 or shape[0] != 1 or not all(isinstance(size, int) for size in shape):
        return model
    copy = ModelProto()
    copy.CopyFrom(model)
    fold(copy)
    _keep_first_sizes(copy)
    image_inputs(copy.graph)[0].type.tensor_type.shape.dim[0].dim_param = BATCH
    for value in copy.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del copy.graph.value_info[:]
    try:
        freed = infer_shapes(copy)
        return freed if takes_batches(freed) else model
    except ModelError:
        # It contradicts itself with another batch, so it has one; later steps say so.
        return model


def _keep_first_sizes(model: ModelProto) -> None:
    known = {
        value.name: shape_of(value)
        for value in (*infer_shapes(model).graph.value_info, *model.graph.input)
    }
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    names = FreshNames(model)
    for node in model.graph.node:
        if node.op_type != "Reshape" or node.input[1] not in stored:
            continue
        target = numpy_helper.to_array(stored[node.input[1]]).copy()
        is_batch = known.get(node.input[0], ())[:1] == (1,) and target.size and target[0] == 1
        if is_batch and not attribute(node, "allowzero", 0):
            target[0] = 0
            name = names(f"{node.input[1]}_of_any_batch")
            model.graph.initializer.append(numpy_helper.from_array(target, name))
            node.input[1] = name
