"""What rules that recognise heads take and return, and how one of their answers is chosen.

A rule is a function that looks at a graph's outputs and returns a :class:`HeadGuess`, or None where
they do not have its layout. All rules are asked; the surest answer wins. Two answers that are
equally sure and differ are no answer: the user is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import GraphProto, NodeProto

from visionrt.manifest import TensorInfo

# How sure a rule is. What it names would have to be a coincidence of several numbers,
CERTAIN = 0.95
# or of one number.
LIKELY = 0.8
# Operators that keep the values they pass on.
_TRANSPARENT = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "Transpose")
# What may stand between an activation and the convolution that reads it.
_BEFORE_CONV = (*_TRANSPARENT, "Pad", "BatchNormalization")
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32))


@dataclass(frozen=True)
class HeadGuess:
    """A head and why.

    Attributes:
        task, head, options: for the recipe.
        reason: of task and head, in a few words: ``one output of 1000 class scores``.
        classes: number of class ids; None where the shapes do not say.
        ambiguous_with: heads that the shapes fit as well; the user must choose.
        why: reasons of single options.
        confidence: 0…1; ``CERTAIN`` or ``LIKELY``.
        missing: options that the graph does not tell, and the values to choose from.
    """

    task: str
    head: str
    options: dict[str, Any]
    reason: str
    classes: int | None = None
    ambiguous_with: tuple[str, ...] = ()
    why: dict[str, str] = field(default_factory=dict)
    confidence: float = LIKELY
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outputs:
    """The outputs of a graph at a known input size.

    Attributes:
        infos: name, dtype and shape of each, in the graph's order.
        size: height and width of the input image.
        last_op: by output name, the operator that made the values; see :func:`last_operators`.
        separable: the activation before each output that a depthwise separable convolution makes;
            see :func:`separable_outputs`.
    """

    infos: tuple[TensorInfo, ...]
    size: tuple[int, int]
    last_op: Mapping[str, str]
    separable: Mapping[str, str] = field(default_factory=dict)

    def cells(self) -> set[int]:
        """Grid cells over the strides that detectors use."""
        h, w = self.size
        return {sum(-(-h // s) * -(-w // s) for s in strides) for strides in _STRIDES}


Rule = Callable[[Outputs], HeadGuess | None]


def choose_guess(outputs: Outputs, rules: Iterable[Rule]) -> HeadGuess | None:
    """The surest answer of the rules, or None where no rule speaks.

    Where another head is as sure, the answer names it in ``ambiguous_with``.
    """
    found = [guess for rule in rules if (guess := rule(outputs)) is not None]
    if not found:
        return None
    best = max(found, key=lambda guess: guess.confidence)
    rivals = {g.head for g in found if g.confidence == best.confidence} - {best.head}
    if not rivals:
        return best
    heads = dict.fromkeys((best.head, *best.ambiguous_with, *sorted(rivals)))
    return dataclasses.replace(best, ambiguous_with=tuple(heads))


def last_operators(graph: GraphProto) -> dict[str, str]:
    """By output name, the operator that made its values, reshapes and the like skipped.

    Parts that were made by one operator each and joined count as made by that operator.
    """
    producers = {name: node for node in graph.node for name in node.output}
    return {value.name: _last_operator(value.name, producers) for value in graph.output}


def _last_operator(name: str, producers: Mapping[str, NodeProto]) -> str:
    node = _before(name, producers, _TRANSPARENT)
    if node is None:
        return ""
    if node.op_type == "Concat":
        parts = {_last_operator(part, producers) for part in node.input}
        return parts.pop() if len(parts) == 1 else "Concat"
    return node.op_type


def _before(
    name: str, producers: Mapping[str, NodeProto], skipped: Collection[str]
) -> NodeProto | None:
    """The node that made a value, the skipped ones left out where a node stands before them."""
    node = producers.get(name)
    while node is not None and node.op_type in skipped and node.input[0] in producers:
        node = producers[node.input[0]]
    return node


def separable_outputs(graph: GraphProto) -> dict[str, str]:
    """The outputs whose last convolution is 1×1 on top of a depthwise one.

    Returns:
        By output name, the operator of the activation before both: ``Sigmoid`` where a Mul makes
        a swish of it; an empty string where none is.
    """
    producers = {name: node for node in graph.node for name in node.output}
    sizes = {value.name: tuple(value.dims) for value in graph.initializer}
    found = {}
    for value in graph.output:
        last = _nearest_conv(value.name, producers)
        if last is None or sizes.get(last.input[1], ())[2:] != (1, 1):
            continue
        depthwise = _before(last.input[0], producers, _TRANSPARENT)
        if depthwise is None or depthwise.op_type != "Conv":
            continue
        groups = next((a.i for a in depthwise.attribute if a.name == "group"), 1)
        weights = sizes.get(depthwise.input[1], ())
        if groups > 1 and weights[1:2] == (1,):
            found[value.name] = _activation_at(depthwise.input[0], producers)
    return found


def _activation_at(name: str, producers: Mapping[str, NodeProto]) -> str:
    node = _before(name, producers, _BEFORE_CONV)
    if node is None:
        return ""
    if node.op_type == "Mul":
        made_by = {producers[given].op_type for given in node.input if given in producers}
        return "Sigmoid" if "Sigmoid" in made_by else "Mul"
    return node.op_type


def _nearest_conv(name: str, producers: Mapping[str, NodeProto]) -> NodeProto | None:
    """The convolution with the fewest nodes between it and a value."""
    waiting, seen = [name], {name}
    for current in waiting:
        node = producers.get(current)
        if node is None:
            continue
        if node.op_type == "Conv":
            return node
        fresh = [given for given in node.input if given not in seen]
        seen.update(fresh)
        waiting.extend(fresh)
    return None


def activation_of(last_op: str, otherwise: str) -> str:
    """What is still to be applied to scores: nothing where the graph ends in an activation."""
    return "none" if last_op in ("Softmax", "Sigmoid") else otherwise


def said(why: Mapping[str, str]) -> dict[str, str]:
    """The reasons that are not empty."""
    return {key: reason for key, reason in why.items() if reason}
