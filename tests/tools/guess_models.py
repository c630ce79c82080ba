"""Tiny models with outputs of given shapes, and the flags to guess their recipe with."""

from __future__ import annotations

from onnx import TensorProto, helper

from trtconvert.guess import RecipeFlags


def model_with(outputs, *, image=(1, 3, 96, 96), dtype=TensorProto.FLOAT, last="Identity"):
    """A graph that is only its interface: each output comes from one ``last`` node."""
    nodes, values, feeds = [], [], [helper.make_tensor_value_info("image", dtype, image)]
    for name, shape in outputs.items():
        feeds.append(helper.make_tensor_value_info(f"{name}_in", TensorProto.FLOAT, shape))
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        nodes.append(helper.make_node(last, [f"{name}_in"], [name]))
    graph = helper.make_graph(nodes, "g", feeds, values)
    # The other inputs are weights as far as the converter is concerned.
    for value in feeds[1:]:
        sizes = [size if isinstance(size, int) else 1 for size in outputs[value.name[:-3]]]
        count = 1
        for size in sizes:
            count *= size
        graph.initializer.append(
            helper.make_tensor(value.name, TensorProto.FLOAT, sizes, bytes(4 * count), raw=True)
        )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def flags(preprocess="none", **others):
    return RecipeFlags(preprocess=preprocess, **others)
