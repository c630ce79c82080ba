"""Checks the edits of a graph against the graph before each: a build's reference is edited too.

=================  =================================================================================
cut                the named tensors of the graph before, all of whose nodes are there that can run
training undone    the formula of BatchNormalization, and the input of a Dropout
channels first     the same images, turned
input size         the graph before, at the new size where it takes it, else both at its own
batch              each image alone
=================  =================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from trtconvert.batching import worst_difference
from trtconvert.edits import EditStage
from trtconvert.graph import CORE_DOMAINS, all_nodes, image_inputs, names_read, shape_of
from trtconvert.ordering import order_nodes
from trtconvert.passes.inference import trains, without_training
from trtconvert.verify import synthetic_images
from visionrt import image_io
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import AccuracyError, InputDataError, ModelError
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

_IMAGES = 2
# Of a tensor's largest value. Another order of the same float32 sums differs by far less, a wrong
# axis, constant or tensor by far more.
_TOLERANCE = 1e-3
_NODES_AT_ONCE = 8  # whose inputs and outputs are held
_RESHAPES = ("Squeeze", "Unsqueeze")
_Values = dict[str, NDArray[Any]]


def check_edits(
    stages: Sequence[EditStage],
    spec: PreprocessSpec,
    files: Sequence[Path],
    warnings: list[str],
) -> tuple[str, ...]:
    """What was checked of each edit, in a sentence. Runs both graphs of each on two images.

    Args:
        stages: see :class:`EditStage`.
        spec: how images are fed; each graph's size and layout go before its own.
        files: images; deterministic ones stand in where there are fewer than two.
        warnings: gets a sentence for each edit that cannot be checked.

    Raises:
        AccuracyError: an edit has changed what the graph computes.
    """
    if not stages:
        return ()
    images = _images(files, spec.size)
    said = []
    for stage in stages:
        try:
            worst = _CHECKS[stage.kind](stage, spec, images)
        except ModelError as error:
            warnings.append(f"{stage.label} was not checked: {error.got}")
            continue
        said.append(f"{stage.label}: {stage.against}, {_IMAGES} images, at most {worst:.1g} apart")
    return tuple(said)


def _cut(stage: EditStage, spec: PreprocessSpec, images: Sequence[NDArray[np.uint8]]) -> float:
    after = without_training(stage.after)
    before = _runnable(without_training(stage.before))
    wanted = {value.name: _named_before(before, after, value.name) for value in after.graph.output}
    _also_outputs(before, wanted.values())
    worst = 0.0
    with _Running(before) as old, _Running(after) as new:
        for index, image in enumerate(images):
            expected = old.run([image], spec)
            got = new.run([image], spec)
            for name, source in wanted.items():
                reference = expected[source]
                if got[name].size == reference.size:  # a batch axis was added, or one of size 1 cut
                    reference = reference.reshape(got[name].shape)
                worst = max(worst, _agree(stage, source, reference, got[name], index))
    return worst


def _named_before(before: ModelProto, after: ModelProto, name: str) -> str:
    """The tensor of the graph before that an output is, or is made of by a reshape."""
    known = {output for node in before.graph.node for output in node.output}
    made = {output: node for node in after.graph.node for output in node.output}
    while name not in known and name in made and made[name].op_type in _RESHAPES:
        name = made[name].input[0]
    if name not in known:
        raise ModelError(
            f"{name} among what the graph before can compute",
            got=f"{name} depends on operators that only TensorRT has",
            fix="Name other tensors.",
        )
    return name


def _whole(stage: EditStage, spec: PreprocessSpec, images: Sequence[NDArray[np.uint8]]) -> float:
    """Every output, on the same images."""
    worst = 0.0
    with _Running(stage.before) as old, _Running(stage.after) as new:
        for index, image in enumerate(images):
            expected, got = old.run([image], spec), new.run([image], spec)
            for name, reference in expected.items():
                worst = max(worst, _agree(stage, name, reference, got.get(name), index))
    return worst


def _batch(stage: EditStage, spec: PreprocessSpec, images: Sequence[NDArray[np.uint8]]) -> float:
    worst = 0.0
    with _Running(stage.before) as old, _Running(stage.after) as new:
        got = new.run(images, spec)
        alone = [old.run([image], spec) for image in images]
        for name in alone[0]:
            expected = np.concatenate([single[name] for single in alone])
            worst = max(worst, _agree(stage, name, expected, got.get(name), 0))
    return worst


def _training(stage: EditStage, spec: PreprocessSpec, images: Sequence[NDArray[np.uint8]]) -> float:
    """Each node that was changed, by its formula."""
    left = {node.output[0] for node in stage.after.graph.node if trains(node)}
    nodes = [
        node for node in stage.before.graph.node if trains(node) and node.output[0] not in left
    ]
    stored = {t.name: numpy_helper.to_array(t) for t in stage.after.graph.initializer}
    worst = 0.0
    for first in range(0, len(nodes), _NODES_AT_ONCE):
        some = nodes[first : first + _NODES_AT_ONCE]
        shown = _runnable(stage.after)
        given = {value.name for value in shown.graph.input}
        names = {n for node in some for n in (*_read_in_inference(node), node.output[0])}
        _also_outputs(shown, sorted(names - stored.keys() - given - {""}))
        with _Running(shown) as running:
            for index, image in enumerate(images):
                feed = running.feed([image], spec)
                values = {**stored, **running.run_feed(feed), **feed}
                for node in some:
                    expected = _in_inference(node, values)
                    got = values[node.output[0]]
                    worst = max(worst, _agree(stage, node.output[0], expected, got, index))
    return worst


def _read_in_inference(node: NodeProto) -> Sequence[str]:
    count = 1 if node.op_type == "Dropout" else 5
    return [str(name) for name in node.input[:count]]


def _in_inference(node: NodeProto, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What a node is to give, in float64. Source: the ONNX operators' definitions."""
    x, *statistics = (values[name] for name in _read_in_inference(node))
    if node.op_type == "Dropout":
        return x
    scale, shift, mean, variance = (
        array.astype(np.float64).reshape(-1, *(1,) * (x.ndim - 2)) for array in statistics
    )
    epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
    deviation = np.sqrt(variance + epsilon)
    normalised: NDArray[Any] = (x - mean) / deviation * scale + shift
    return normalised


_CHECKS = {
    "cut": _cut,
    "training": _training,
    "channels": _whole,
    "size": _whole,
    "batch": _batch,
}


def _agree(
    stage: EditStage,
    name: str,
    expected: NDArray[Any],
    got: NDArray[Any] | None,
    image: int,
) -> float:
    """The difference, of the largest value. Raises AccuracyError where it is beyond rounding."""
    if got is None or got.shape != expected.shape:
        what = "no such output" if got is None else f"one of shape {list(got.shape)}"
        raise _changed(stage, f"{name} of shape {list(expected.shape)}", what)
    worst = worst_difference(expected, got)
    if not worst <= _TOLERANCE:
        raise _changed(
            stage,
            f"{name} to stay as it was",
            f"values {worst:.2g} of the largest apart, on image {image + 1}",
        )
    return worst


def _changed(stage: EditStage, expected: str, got: str) -> AccuracyError:
    return AccuracyError(f"{stage.label}: {expected}", got=got, fix=stage.instead)


class _Running:
    """A graph in ONNX Runtime, fed with images."""

    def __init__(self, model: ModelProto) -> None:
        (self._image,) = image_inputs(model.graph)
        self._backend = OnnxRuntimeBackend(model.SerializeToString())

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *error: object) -> None:
        self._backend.close()

    def run(self, images: Sequence[NDArray[np.uint8]], spec: PreprocessSpec) -> _Values:
        return self.run_feed(self.feed(images, spec))

    def run_feed(self, feed: _Values) -> _Values:
        return self._backend.run(feed)

    def feed(self, images: Sequence[NDArray[np.uint8]], spec: PreprocessSpec) -> _Values:
        """The images as this graph takes them; a fixed batch is filled with the last."""
        shape = shape_of(self._image)
        layout = "nhwc" if shape[1] not in (1, 3) and shape[3] in (1, 3) else "nchw"
        sides = shape[1:3] if layout == "nhwc" else shape[2:]
        height, width = (
            side if isinstance(side, int) else own
            for side, own in zip(sides, spec.size, strict=True)
        )
        own = Preprocessor(spec.replace(size=(height, width), layout=layout))
        batch = shape[0] if isinstance(shape[0], int) else len(images)
        filled = [*images, *[images[-1]] * (batch - len(images))]
        return {self._image.name: own(filled)}


def _images(files: Sequence[Path], size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    return [image for image, _ in zip(_candidates(files, size), range(_IMAGES), strict=False)]


def _candidates(files: Sequence[Path], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    for path in files:
        try:
            yield image_io.decode(path)
        except InputDataError:  # the verification tells of it
            continue
    yield from synthetic_images(size)


def _runnable(model: ModelProto) -> ModelProto:
    """A copy without the nodes that ONNX Runtime does not know, nor what depends on them."""
    copy = ModelProto()
    copy.CopyFrom(model)
    order_nodes(copy.graph)
    functions = {(function.domain, function.name) for function in copy.functions}
    missing: set[str] = set()
    kept = []
    for node in copy.graph.node:
        runs = all(
            (inner.domain, inner.op_type) in functions
            or (inner.domain in CORE_DOMAINS and onnx.defs.has(inner.op_type, ""))
            or onnx.defs.has(inner.op_type, inner.domain)
            for inner in (node, *_inside(node))
        )
        if not runs or missing.intersection(names_read(node)):
            missing.update(node.output)
        else:
            kept.append(NodeProto.FromString(node.SerializeToString()))
    if missing:
        del copy.graph.node[:]
        copy.graph.node.extend(kept)
        left = [value for value in copy.graph.output if value.name not in missing]
        left = [ValueInfoProto.FromString(value.SerializeToString()) for value in left]
        del copy.graph.output[:]
        copy.graph.output.extend(left)
    return copy


def _inside(node: NodeProto) -> list[NodeProto]:
    bodies = [a.g for a in node.attribute if a.HasField("g")]
    return [inner for body in bodies for inner in all_nodes(body)]


def _also_outputs(model: ModelProto, names: Any) -> None:
    """Give values out beside the outputs; ONNX Runtime infers their types."""
    there = {value.name for value in model.graph.output}
    for name in names:
        if name not in there:
            model.graph.output.append(ValueInfoProto(name=name))
            there.add(name)
