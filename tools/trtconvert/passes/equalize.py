"""Evens out the channels of a tensor before it is quantized with one scale.

A channel that stays ten times smaller than its neighbours has ten times fewer of the 255 steps.
What comes before divides it by a factor, what comes after multiplies, and the model computes the
same: the division goes into the output channels of convolutions (whose int8 scales are per output
channel, so they lose nothing), the product into the input channels of the next ones.

Rules:

1. A group is all tensors that must share factors: those joined by ``Add``, ``Relu``, ``Clip``,
   pooling. Its writers are Convs; its readers too, full, grouped or depthwise. A group that
   anything else writes or reads, that is an output of the graph, or whose height or width is not
   known, is left alone.
2. A depthwise Conv belongs to the groups on both of its sides, which stay apart.
3. The bounds of a ``Clip`` become per channel: ``Relu``, and a ``Min`` with a constant. So the
   function is the same for every input, not only for those seen in calibration.
4. Factors: the channel's largest activation to the power of ``DEPTHWISE_BALANCE`` where only
   depthwise Convs read it, whose weight scales are per channel too, and of ``BALANCE`` otherwise.
   Small channels become larger, and are left room for what calibration has not shown. Factors are
   scaled so that the tensor's peak stays what it was, and kept within ``MOST``.

Sources: M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019; G. Xiao et al., "SmoothQuant", ICML 2023 (a power of the activations' peaks).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from trtconvert.graph import CORE_DOMAINS
from trtconvert.graph_view import (
    FreshNames,
    GraphView,
    attribute,
    drop_unused_initializers,
    node_name,
    replace_nodes,
)
from trtconvert.passes.dims import infer_shapes

BALANCE, DEPTHWISE_BALANCE = 0.5, 0.75
# Beyond this a weight that is later read in float16 would lose digits.
MOST = 128.0
_JOINING = frozenset({"Add", "Relu", "Clip", "MaxPool", "AveragePool"})


@dataclass(frozen=True)
class ChannelGroup:
    """Tensors whose channels (axis 1) share factors.

    Attributes:
        tensors: their names, in graph order.
        writers, readers: indices of the Convs that write and read them.
        clips: indices of the Clips between them.
        channels: how many.
    """

    tensors: tuple[str, ...]
    writers: tuple[int, ...]
    readers: tuple[int, ...]
    clips: tuple[int, ...]
    channels: int


def find_groups(view: GraphView) -> list[ChannelGroup]:
    """The groups of a graph that can be scaled (rules 1 and 2), in graph order."""
    index_of = {id(node): index for index, node in enumerate(view.model.graph.node)}
    seen: set[str] = set()
    groups = []
    for node in view.model.graph.node:
        if node.op_type == "Conv" and node.output[0] not in seen:
            search = _GroupSearch(view, index_of)
            search.visit(node.output[0])
            seen |= search.tensors
            group = search.group()
            if group is not None:
                groups.append(group)
    return groups


class _GroupSearch:
    def __init__(self, view: GraphView, index_of: Mapping[int, int]) -> None:
        self.view = view
        self.index_of = index_of
        self.tensors: set[str] = set()
        self.writers: set[int] = set()
        self.readers: set[int] = set()
        self.clips: set[int] = set()
        self.is_closed = True

    def visit(self, start: str) -> None:
        pending = [start]
        while pending:
            name = pending.pop()
            if name in self.tensors:
                continue
            self.tensors.add(name)
            producer = self.view.producer.get(name)
            if producer is None or name in self.view.outputs:
                self.is_closed = False
            if producer is not None:
                pending += self._through(producer, name, self.writers)
            for reader in self.view.consumers[name]:
                pending += self._through(reader, name, self.readers)

    def _through(self, node: NodeProto, name: str, convs: set[int]) -> list[str]:
        """Take note of a node that touches ``name``; returns the tensors that it joins to it."""
        view, index = self.view, self.index_of[id(node)]
        if _is_scalable_conv(view, node) and name not in node.input[1:]:
            convs.add(index)
            return []
        if node.op_type in _JOINING and node.domain in CORE_DOMAINS:
            if node.op_type == "Clip":
                if _clip_bounds(view, node) is None:
                    self.is_closed = False
                self.clips.add(index)
                return [node.input[0], node.output[0]]
            shapes = {view.shape.get(tensor) for tensor in node.input}
            constant = any(tensor in view.initializers for tensor in node.input)
            if len(shapes) == 1 and None not in shapes and not constant and len(node.output) == 1:
                return [*node.input, *node.output]
        self.is_closed = False
        return []

    def group(self) -> ChannelGroup | None:
        shapes = [self.view.shape.get(name) for name in self.tensors]
        maps = [shape for shape in shapes if shape and len(shape) == 4 and _is_known(shape[2:])]
        channels = {shape[1] for shape in maps}
        size = channels.pop() if len(channels) == 1 and len(maps) == len(shapes) else None
        if not self.is_closed or not self.readers or not isinstance(size, int):
            return None
        order = {n: i for i, node in enumerate(self.view.model.graph.node) for n in node.output}
        tensors = sorted(self.tensors, key=order.__getitem__)
        return ChannelGroup(
            tuple(tensors),
            tuple(sorted(self.writers)),
            tuple(sorted(self.readers)),
            tuple(sorted(self.clips)),
            size,
        )


def _is_known(sizes: Sequence[int | str | None]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def channel_factors(
    view: GraphView, group: ChannelGroup, peaks: Mapping[str, NDArray[np.floating]]
) -> NDArray[np.float32]:
    """What to divide each channel of a group by (rule 4): float32 ``[channels]``, above zero.

    Args:
        peaks: largest absolute value per channel by tensor name; needed for what the readers read.
    """
    readers = [view.model.graph.node[index] for index in group.readers]
    peak = np.max([peaks[node.input[0]] for node in readers], axis=0).astype(np.float64)
    factors = np.ones(group.channels)
    live = peak > 0
    if not live.any():
        return factors.astype(np.float32)
    is_depthwise = all(_groups_of(node) == group.channels for node in readers)
    factors[live] = (peak[live] / peak.max()) ** (DEPTHWISE_BALANCE if is_depthwise else BALANCE)
    return np.clip(factors, 1 / MOST, MOST).astype(np.float32)


def spared_noise_db(
    view: GraphView, group: ChannelGroup, factors: NDArray[np.float32]
) -> list[float]:
    """By how much less int8 noise of a group's tensors comes out of each of its readers, decibels.

    Rounding with a step that all channels share errs alike in each, and a convolution adds that up
    by the squares of its weights. As factors leave the step as it is, a channel's error becomes
    as much smaller as its factor. The weights' own rounding is not in it.
    """
    found = []
    for index in group.readers:
        node = view.model.graph.node[index]
        weight = view.array(node.input[1]).astype(np.float32)
        power = np.square(weight).reshape(*weight.shape[:2], -1).sum(axis=2, dtype=np.float64)
        after = power * np.square(_rows(node, factors, len(weight)))
        total = power.sum()
        found.append(10 * math.log10(total / after.sum()) if total > 0 else 0.0)
    return found


def equalize(
    view: GraphView, factors: Mapping[int, NDArray[np.float32]], groups: Sequence[ChannelGroup]
) -> ModelProto:
    """The graph with each group's channels divided by its factors.

    Args:
        view: of the float32 graph.
        factors: by position in ``groups``; a group without stays as it is.
    """
    out = ModelProto()
    out.CopyFrom(view.model)
    names = FreshNames(out)
    divide: dict[int, NDArray[np.float32]] = {}
    multiply: dict[int, NDArray[np.float32]] = {}
    clips: dict[int, NDArray[np.float32]] = {}
    for position, factor in factors.items():
        group = groups[position]
        divide |= dict.fromkeys(group.writers, factor)
        multiply |= dict.fromkeys(group.readers, factor)
        clips |= dict.fromkeys(group.clips, factor)
    nodes: list[NodeProto] = []
    for index, node in enumerate(out.graph.node):
        if index in clips:
            nodes += _clip_per_channel(out, view, node, clips[index], names)
            continue
        if index in divide or index in multiply:
            _scale_conv(out, view, node, divide.get(index), multiply.get(index), names)
        nodes.append(node)
    replace_nodes(out.graph, nodes)
    drop_unused_initializers(out.graph)
    return infer_shapes(out)


def _scale_conv(
    out: ModelProto,
    view: GraphView,
    node: NodeProto,
    divide: NDArray[np.float32] | None,
    multiply: NDArray[np.float32] | None,
    names: FreshNames,
) -> None:
    weight = view.array(node.input[1]).astype(np.float32)
    ones = (1,) * (weight.ndim - 2)
    if multiply is not None:
        rows = _rows(node, multiply, len(weight))
        weight = weight * rows.reshape(*rows.shape, *ones)
    if divide is not None:
        weight = weight / divide.reshape(-1, 1, *ones)
        if len(node.input) > 2 and node.input[2]:
            bias = view.array(node.input[2]).astype(np.float32) / divide
            node.input[2] = _constant(out, view, names(f"{node.input[2]}_equalized"), bias)
    node.input[1] = _constant(out, view, names(f"{node.input[1]}_equalized"), weight)


def _rows(node: NodeProto, factors: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """Factors of what a Conv reads, as its weights: ``[channels written, channels per group]``."""
    groups = _groups_of(node)
    return factors.reshape(groups, -1).repeat(channels // groups, axis=0)


def _clip_per_channel(
    out: ModelProto,
    view: GraphView,
    node: NodeProto,
    factor: NDArray[np.float32],
    names: FreshNames,
) -> list[NodeProto]:
    bounds = _clip_bounds(view, node)
    assert bounds is not None, "a group with another Clip is not closed"
    low, high = bounds
    source, steps = node.input[0], []
    if low is not None:
        steps.append(("Max", low))
    if high is not None:
        steps.append(("Min", high))
    nodes = []
    for number, (op_type, bound) in enumerate(steps, 1):
        is_last = number == len(steps)
        result = node.output[0] if is_last else names(f"{node.output[0]}_unclipped")
        # The last one keeps the name, by which decisions and plans speak of it.
        label = node_name(node) if is_last else names(f"{node_name(node)}_low")
        if op_type == "Max" and bound == 0.0:
            nodes.append(helper.make_node("Relu", [source], [result], name=label))
        else:
            value = (np.float32(bound) / factor).reshape(1, -1, 1, 1)
            constant = _constant(out, view, names(f"{node.output[0]}_bound"), value)
            nodes.append(helper.make_node(op_type, [source, constant], [result], name=label))
        source = result
    return nodes


def _constant(out: ModelProto, view: GraphView, name: str, value: NDArray[np.float32]) -> str:
    out.graph.initializer.append(view.constant(value.astype(np.float32), name))
    return name


def _is_scalable_conv(view: GraphView, node: NodeProto) -> bool:
    return (
        node.op_type == "Conv"
        and node.domain in CORE_DOMAINS
        and all(name in view.initializers for name in node.input[1:] if name)
    )


def _groups_of(node: NodeProto) -> int:
    value = attribute(node, "group", 1)
    assert isinstance(value, int)
    return value


def _clip_bounds(view: GraphView, node: NodeProto) -> tuple[float | None, float | None] | None:
    """Constant bounds, None for one that is absent; None where they cannot be had, or both are."""
    bounds: list[float | None] = []
    for name in (*node.input[1:], "", "")[:2]:
        if name and name not in view.initializers:
            return None
        bounds.append(float(view.array(name)) if name else None)
    return None if bounds == [None, None] else (bounds[0], bounds[1])
