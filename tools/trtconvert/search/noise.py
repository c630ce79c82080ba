"""Ranks int8 nodes by the noise that each alone brings to the model's raw answers.

The graph is run in parts (:mod:`trtconvert.search.choices`). Per node and image its part is run
with that node in int8, and then the parts behind that this changes. The noise is measured at the
raw answers (:mod:`trtconvert.search.answers`). What is held: per image the tensors between two
parts and its answers, and per node that is being run as much again.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtconvert.calibration.collect import with_outputs
from trtconvert.graph_view import GraphView
from trtconvert.passes.placement import Placement
from trtconvert.progress import Progress
from trtconvert.search.answers import (
    answer_shares,
    difference_power,
    noise_share,
    positions,
    raw_answers,
    relative_noise,
    signal_power,
)
from trtconvert.search.choices import CHOICES, Part, dependents, parts_of
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.cpu_settings import usable_cores

# Runs at a time, of one thread each: each holds tensors of its own.
_MOST_WORKERS = 4


def int8_noise(
    view: GraphView,
    placement: Placement,
    thresholds: Mapping[str, float],
    images: Iterable[NDArray[Any]],
    weights: Mapping[str, float],
    progress: Progress,
) -> dict[str, float]:
    """Noise over signal at the raw answers by node name, each int8 node by itself.

    Args:
        view: of the float32 graph (opset 19 or newer).
        placement: the nodes to rank.
        thresholds: absolute value that maps to 127, by activation name.
        images: a few input tensors.
        weights: of the raw answers.
        progress: called after each node.
    """
    answers = raw_answers(view)
    states = [_State({view.inputs[0]: tensor}) for tensor in images]
    power: dict[str, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(min(usable_cores(), _MOST_WORKERS)))
        parts = parts_of(view, placement, answers)
        behind: list[_Running] = []
        for part in parts[:0:-1]:
            backend = stack.enter_context(running(view, part.plain(), threads=1))
            behind.insert(0, _Running(part, backend))
        for part in parts:
            with running(view, part.choice(thresholds), as_written=True, threads=1) as backend:
                choices = _Choices(view, part, backend, behind, states)
                found = pool.map(choices.power, range(len(part.nodes)))
                for node, powers in zip(part.nodes, found, strict=True):
                    power[node] = powers
                    progress("Ranking nodes", len(power), len(placement.nodes))
                choices.advance()
            if behind:
                behind.pop(0).backend.close()
    shares = [answer_shares(state.positions, weights) for state in states]
    return {
        node: sum(
            shares[i][name] * noise_share(value, states[i].signal[name])
            for i, by_answer in enumerate(powers)
            for name, value in by_answer.items()
        )
        / max(len(states), 1)
        for node, powers in power.items()
    }


@dataclass
class _State:
    """What is known of the float run of an image.

    Attributes:
        values: of the tensors that enter the present part or a later one, by name.
        narrow: answers as the parts behind write them; see :mod:`trtconvert.search.choices`.
        signal, positions: of the answers so far.
    """

    values: dict[str, NDArray[Any]]
    narrow: dict[str, NDArray[Any]] = field(default_factory=dict)
    signal: dict[str, float] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)


class _Running(NamedTuple):
    part: Part
    backend: OnnxRuntimeBackend


class _Choices:
    """The part whose nodes are being run, and the parts behind it."""

    def __init__(
        self,
        view: GraphView,
        part: Part,
        backend: OnnxRuntimeBackend,
        behind: Sequence[_Running],
        states: Sequence[_State],
    ) -> None:
        self._view, self._part, self._backend = view, part, backend
        self._behind, self._states = behind, states
        self._clean = [self._run(state, None) for state in states]
        for state, clean in zip(states, self._clean, strict=True):
            for name in part.answers:
                state.signal[name] = signal_power(clean[name])
                state.positions[name] = positions(clean[name])
            if not state.narrow:
                state.narrow = self._follow(state, clean, behind)

    def power(self, index: int) -> list[dict[str, float]]:
        """Of the noise that a node brings, per image, by name of the answers that it can reach."""
        changed = dependents(self._view, self._part.nodes[index])
        chain = _reached(self._behind, changed)
        found = []
        for state, clean in zip(self._states, self._clean, strict=True):
            noisy = self._run(state, index)
            exact = state.narrow | clean
            answers = {name: noisy[name] for name in self._part.answers}
            answers |= self._follow(state, noisy, chain)
            found.append(
                {
                    name: difference_power(exact[name], answer)
                    for name, answer in answers.items()
                    if name in changed
                }
            )
        return found

    def advance(self) -> None:
        """Leave the part: keep what the later ones read."""
        read = {name for running in self._behind for name in running.part.inputs}
        for state, clean in zip(self._states, self._clean, strict=True):
            state.values = {k: v for k, v in (state.values | clean).items() if k in read}

    def _run(self, state: _State, index: int | None) -> dict[str, NDArray[Any]]:
        choice = np.arange(len(self._part.nodes)) == (-1 if index is None else index)
        feed = {name: state.values[name] for name in self._part.inputs}
        return self._backend.run({**feed, CHOICES: choice})

    def _follow(
        self, state: _State, written: Mapping[str, NDArray[Any]], chain: Sequence[_Running]
    ) -> dict[str, NDArray[Any]]:
        """The answers of parts that run one after the other on what the present part wrote."""
        values = {**state.values, **written}
        answers: dict[str, NDArray[Any]] = {}
        for at, (part, backend) in enumerate(chain):
            values |= backend.run({name: values[name] for name in part.inputs})
            answers |= {name: values.pop(name) for name in part.answers}
            read = {name for running in chain[at + 1 :] for name in running.part.inputs}
            values = {name: value for name, value in values.items() if name in read}
        return answers


def _reached(behind: Sequence[_Running], changed: Collection[str]) -> list[_Running]:
    """The parts that write one of some tensors, or something that such a part reads."""
    chain: list[_Running] = []
    needed: set[str] = set()
    for running in reversed(behind):
        outputs = running.part.outputs
        if needed.intersection(outputs) or any(name in changed for name in outputs):
            needed.update(running.part.inputs)
            chain.append(running)
    return chain[::-1]


class AnswerNoise:
    """Noise over signal at the raw answers of int8 graphs, the mean over images and answers.

    Args:
        view: of the float32 graph, which is run once.
        images: a few input tensors; they and the answers are kept.
        weights: of the raw answers.
    """

    def __init__(
        self,
        view: GraphView,
        images: Iterable[NDArray[Any]],
        weights: Mapping[str, float],
    ) -> None:
        self._view = view
        self._weights = weights
        self._answers = raw_answers(view)
        self._tensors = list(images)
        self._clean = _float_runs(view, self._answers, self._tensors)

    def __call__(self, quantized: ModelProto, *, most: float = math.inf) -> float:
        """Of a Q/DQ form of the graph, with the same tensor names.

        Args:
            quantized: the graph.
            most: once the noise is sure to be more, no further image is run; what is returned then
                is more than this and less than the noise.
        """
        model = with_outputs(quantized, self._answers)
        total = 0.0
        with running(self._view, model, as_written=True) as backend:
            for tensor, clean in zip(self._tensors, self._clean, strict=True):
                answers = {name: clean[name] for name in self._answers}
                total += relative_noise(
                    answers, backend.run({self._view.inputs[0]: tensor}), self._weights
                )
                if total > most * len(self._tensors):
                    break
        return total / max(len(self._tensors), 1)


def _float_runs(
    view: GraphView, answers: Sequence[str], tensors: Sequence[NDArray[Any]]
) -> list[dict[str, NDArray[Any]]]:
    """The answers per image, by name."""
    with running(view, with_outputs(view.model, answers)) as backend:
        return [backend.run({view.inputs[0]: tensor}) for tensor in tensors]


def running(
    view: GraphView, model: ModelProto, *, as_written: bool = False, threads: int | None = None
) -> contextlib.closing[OnnxRuntimeBackend]:
    """A session of a graph made of ``view``, for a with statement."""
    return contextlib.closing(view.running(model, as_written=as_written, threads=threads))
