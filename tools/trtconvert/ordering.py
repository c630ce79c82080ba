"""Puts nodes in topological order, and says what stands in the way where there is none."""

from __future__ import annotations

from collections import deque

from onnx import GraphProto, NodeProto

from trtconvert.graph import names_read, node_label, subgraphs
from visionrt.errors import ModelError


def order_nodes(graph: GraphProto, outer: frozenset[str] = frozenset()) -> None:
    """Sort the nodes of a graph and of its bodies in place; a sorted graph keeps its order.

    Args:
        graph: changed in place.
        outer: names that enclosing graphs define.

    Raises:
        ModelError: a value nothing defines, one defined twice, or a cycle.
    """
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    producer = _producers(graph, given)
    known = outer | given | producer.keys()
    reads = [set(names_read(node)) for node in graph.node]
    for node, names in zip(graph.node, reads, strict=True):
        for name in sorted(names - known):
            raise _undefined(name, node_label(node))
    for value in graph.output:
        if value.name not in known:
            raise _undefined(value.name, "the graph's outputs")
    waits_for = [{producer[name] for name in names & producer.keys()} for names in reads]
    order = _sorted(graph, waits_for)
    if order != list(range(len(order))):
        nodes = [NodeProto.FromString(graph.node[i].SerializeToString()) for i in order]
        del graph.node[:]
        graph.node.extend(nodes)
    for node in graph.node:
        for body in subgraphs(node):
            order_nodes(body, frozenset(known))


def _producers(graph: GraphProto, given: set[str]) -> dict[str, int]:
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer or name in given:
                raise ModelError(
                    "each value to be defined once",
                    got=f"{name!r} defined again by {node_label(node)}",
                    fix="The model is broken: export it again.",
                )
            producer[name] = index
    return producer


def _sorted(graph: GraphProto, waits_for: list[set[int]]) -> list[int]:
    """Kahn's algorithm, taking nodes in file order where there is a choice."""
    readers: list[list[int]] = [[] for _ in waits_for]
    for index, sources in enumerate(waits_for):
        for source in sources:
            readers[source].append(index)
    # Already sorted is the rule, and keeps the exporter's order.
    if all(source < index for index, sources in enumerate(waits_for) for source in sources):
        return list(range(len(waits_for)))
    missing = [len(sources) for sources in waits_for]
    ready = deque(index for index, count in enumerate(missing) if count == 0)
    order: list[int] = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                ready.append(reader)
    if len(order) < len(waits_for):
        raise _cycle(graph, waits_for, set(range(len(waits_for))) - set(order))
    return order


def _cycle(graph: GraphProto, waits_for: list[set[int]], stuck: set[int]) -> ModelError:
    # Every stuck node waits for a stuck node, so walking back must come round.
    path = [min(stuck)]
    while len(set(path)) == len(path):
        path.append(min(waits_for[path[-1]] & stuck))
    loop = path[path.index(path[-1]) :][::-1]
    names = [node_label(graph.node[index]) for index in loop]
    if len(names) > 6:
        names = [*names[:3], "…", *names[-2:]]
    return ModelError(
        "a graph without cycles",
        got=" → ".join(names),
        fix="The model is broken: export it again.",
    )


def _undefined(name: str, reader: str) -> ModelError:
    return ModelError(
        f"{name!r}, which {reader} reads, to be an input, an initializer or a node's output",
        got="nothing that defines it",
        fix="The model is incomplete: export it again with all its weights.",
    )
