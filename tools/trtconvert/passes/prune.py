"""Removes what no output needs, and gives every node a name.

1. An initializer is not a graph input too (a habit of IR version 3; weights then look variable).
2. Nodes that no output depends on go.
3. Initializers that nothing reads go.
4. Shapes noted on inner values, and doc strings, go: the former may be stale, both are ballast.
5. Every node has a name of its own, made from its operator and first output where it had none or
   shared it: precision decisions and messages name nodes.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from trtconvert.graph import image_inputs, names_read


def prune(model: ModelProto) -> int:
    """Apply the rules in place; returns how many nodes and initializers went."""
    graph = model.graph
    before = len(graph.node) + len(graph.initializer)
    inputs = image_inputs(graph)
    if len(inputs) < len(graph.input):
        inputs = [type(value).FromString(value.SerializeToString()) for value in inputs]
        del graph.input[:]
        graph.input.extend(inputs)
    _drop_dead_nodes(model)
    needed = {name for node in graph.node for name in names_read(node)}
    needed |= {value.name for value in graph.output}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in needed:
            del graph.initializer[index]
    del graph.value_info[:]
    graph.doc_string = model.doc_string = ""
    _name_nodes(model)
    return before - len(graph.node) - len(graph.initializer)


def _drop_dead_nodes(model: ModelProto) -> None:
    graph = model.graph
    needed = {value.name for value in graph.output}
    live: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(names_read(node))
            live.append(node)
    if len(live) < len(graph.node):
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in reversed(live)]
        del graph.node[:]
        graph.node.extend(nodes)


def _name_nodes(model: ModelProto) -> None:
    taken: set[str] = set()
    for node in model.graph.node:
        node.doc_string = ""
        name = base = node.name or f"{node.op_type}_{next(filter(None, node.output), '')}"
        count = 2
        while name in taken:
            name = f"{base}_{count}"
            count += 1
        taken.add(name)
        node.name = name
