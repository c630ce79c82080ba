"""Builds a plan with either TensorRT: parse a typed graph, set shape profiles, build.

Runs in a process of its own (``build_process.py``), because the builder is native code that can
crash, and one of its steps can take most of the time without asking whether to go on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trtconvert.targets.base import BuildCancelledError, ProgressCallback, ShapeRange
from trtconvert.targets.trt_progress import progress_monitor
from visionrt.backends.trt_library import create, logger_of, member
from visionrt.errors import BuildError, MissingDependencyError, ModelError, UsageError

_NO_KERNEL = re.compile(r"(?P<layer>\S+) has no runners that implement it")
_TURING = re.compile(r"Cannot compile operation .* for Turing")
_CUDA_ERROR = re.compile(r"cudaError|CUDA (driver|initialization|error)", re.IGNORECASE)
_LARGEST_MODEL_BYTES = 2**31 - 1  # a serialized protobuf message ends there


@dataclass(frozen=True)
class PlanOptions:
    """What a build takes beside the graph.

    Attributes:
        compute_capabilities: SM numbers to build for; empty means this machine's GPU.
        workspace_bytes: most scratch memory a layer may use on the GPU; None means all of it.
        timing_cache: an earlier build's cache, ``b""`` for a new one; None means none is kept.
    """

    compute_capabilities: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    timing_cache: bytes | None = None


@dataclass(frozen=True)
class BuildResult:
    """The plan, the builder's version and, where one was asked for, its timing cache."""

    plan: bytes = field(repr=False)
    library_version: str
    timing_cache: bytes | None = field(default=None, repr=False)


def build_plan(
    trt: Any,
    model: bytes,
    shapes: Mapping[str, ShapeRange],
    options: PlanOptions,
    progress: ProgressCallback | None,
) -> BuildResult:
    """Build a plan from a serialized ONNX graph whose precisions are all written in it.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
        model: the graph; weights inside.
        shapes: by input name; every dynamic input needs one.
        options: see :class:`PlanOptions`.
        progress: called from the builder's threads.

    Raises:
        ModelError: a node that the parser or the builder cannot take, named.
        UsageError: a missing, unknown or impossible shape range.
        MissingDependencyError: a version without strongly typed networks, or no GPU to build on.
        BuildError: any other failure, with the builder's own words.
        BuildCancelledError: ``progress`` returned False.
    """
    logger, log = logger_of(trt)
    mark = log.mark()
    builder = create(trt, "Builder")
    network = builder.create_network(strongly_typed_flag(trt))
    # The parser writes to the network without keeping it alive, so both stay named until the end.
    parser = _parse(trt, network, logger, model)
    config = builder.create_builder_config()
    _set_compute_capabilities(trt, config, options.compute_capabilities)
    _add_profile(builder, config, network, shapes)
    _prepare_for_capture(trt, config)
    _keep_digits(trt, config, network)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    cache = None
    if options.timing_cache is not None:
        cache = _use_timing_cache(config, options.timing_cache)
    monitor, outcome = progress_monitor(trt, progress)
    config.progress_monitor = monitor

    plan = builder.build_serialized_network(network, config)
    if outcome.error is not None:
        raise outcome.error
    if outcome.cancelled:
        raise BuildCancelledError(
            "a finished build", got="a request to stop", fix="Start it again."
        )
    if plan is None:
        raise _why_it_failed(network, log.since(mark), log.quote_since(mark))
    del parser
    kept = bytes(memoryview(cache.serialize())) if cache is not None else None
    return BuildResult(bytes(memoryview(plan)), str(trt.__version__), kept)


def strongly_typed_flag(trt: Any) -> int:
    """The network flag for graphs that state their precisions; its bit moved between versions.

    Raises:
        MissingDependencyError: a version without it.
    """
    flag = member(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    if flag is None:
        raise MissingDependencyError(
            "a TensorRT with strongly typed networks",
            got=str(trt.__version__),
            fix='Run: pip install --upgrade "trtconvert[tensorrt]"',
        )
    return 1 << int(flag)


def _parse(trt: Any, network: Any, logger: Any, model: bytes) -> Any:
    if len(model) > _LARGEST_MODEL_BYTES:
        raise ModelError(
            "an ONNX graph below 2 GiB with its weights",
            got=f"{len(model) / 2**30:.2f} GiB",
            fix="Convert it to fp16 first, or split the model.",
        )
    parser = trt.OnnxParser(network, logger)
    if parser.parse(model):
        return parser
    problems = [describe_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
    raise ModelError(
        "a graph that the TensorRT parser takes",
        got="; ".join(problems) or "a refusal without a reason",
        fix="Replace the operator, or cut the graph before it; see trtconvert check.",
    )


def describe_parser_error(error: Any) -> str:
    """A parser's error as one line, with the operator and name of the node where it has one."""
    reason = " ".join(str(error.desc()).removeprefix("Assertion failed:").split())
    operator, name = error.node_operator(), error.node_name()
    if not operator:
        return reason
    return f"{operator} node {name or f'number {error.node()}'!r}: {reason}"


def _set_compute_capabilities(trt: Any, config: Any, wanted: Sequence[str]) -> None:
    if not wanted:
        return
    config.num_compute_capabilities = len(wanted)
    for index, sm in enumerate(wanted):
        value = member(trt.ComputeCapability, f"SM{sm}")
        if value is None or not config.set_compute_capability(value, index):
            known = [n for n in trt.ComputeCapability.__members__ if n.startswith("SM")]
            raise UsageError(
                f"a GPU that TensorRT-RTX {trt.__version__} builds for ({', '.join(known)})",
                got=f"SM{sm}",
                fix="Name another one, or use the tensorrt target on the machine with that GPU.",
            )


def _prepare_for_capture(trt: Any, config: Any) -> None:
    """Ask TensorRT-RTX for a plan that allocates nothing while it runs, as CUDA graphs need."""
    flag = member(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")
    if flag is not None:
        config.set_flag(flag)


def _keep_digits(trt: Any, config: Any, network: Any) -> None:
    """No TF32, which has float16's digits, in a graph where float32 stands beside narrower types:
    it is there for the digits, and verified with them."""
    flag = member(trt.BuilderFlag, "TF32")
    narrow = {member(trt.DataType, name) for name in ("HALF", "BF16", "INT8")} - {None}
    layers = map(network.get_layer, range(network.num_layers))
    mixed = any(
        layer.get_output(i).dtype in narrow for layer in layers for i in range(layer.num_outputs)
    )
    if flag is not None and mixed:
        config.clear_flag(flag)


def _use_timing_cache(config: Any, data: bytes) -> Any:
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        # Damaged, or of another GPU or version: it only saves time, so begin a new one.
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _add_profile(builder: Any, config: Any, network: Any, shapes: Mapping[str, ShapeRange]) -> None:
    inputs = {t.name: t for t in map(network.get_input, range(network.num_inputs))}
    for name in shapes:
        if name not in inputs:
            near = difflib.get_close_matches(name, inputs, 1)
            raise UsageError(
                f"a shape range for one of the inputs {sorted(inputs)}",
                got=repr(name),
                fix=f"Did you mean {near[0]!r}?" if near else "Correct the name.",
            )
    profile = builder.create_optimization_profile()
    dynamic = False
    for name, tensor in inputs.items():
        shape = tuple(tensor.shape)
        if tensor.is_shape_tensor:
            raise ModelError(
                "inputs that hold data",
                got=f"input {name!r}, whose values decide shapes",
                fix="Fold it into the graph as a constant.",
            )
        wanted = shapes.get(name)
        if wanted is not None:
            _check_range(name, shape, wanted)
        if -1 not in shape:
            continue
        if wanted is None:
            raise UsageError(
                f"a shape range for input {name!r} of shape {shape}",
                got="none",
                fix="Give --minShapes, --optShapes and --maxShapes, or fix the size.",
            )
        profile.set_shape(name, wanted.min, wanted.opt, wanted.max)
        dynamic = True
    if dynamic and (not profile or config.add_optimization_profile(profile) < 0):
        raise UsageError(
            "shape ranges that fit together",
            got=", ".join(f"{k}: {v.min}…{v.max}" for k, v in shapes.items()),
            fix="Sizes that share a symbolic name in the model must have the same range.",
        )


def _check_range(name: str, shape: tuple[int, ...], wanted: ShapeRange) -> None:
    # The library takes min > opt silently and fails much later, in other words.
    ranks = {len(wanted.min), len(wanted.opt), len(wanted.max), len(shape)}
    fits = len(ranks) == 1 and all(
        1 <= low <= mid <= high and (size == -1 or low == high == size)
        for size, low, mid, high in zip(shape, wanted.min, wanted.opt, wanted.max, strict=True)
    )
    if not fits:
        raise UsageError(
            f"1 ≤ min ≤ opt ≤ max for input {name!r} of shape {shape}",
            got=f"min {wanted.min}, opt {wanted.opt}, max {wanted.max}",
            fix="Correct the range; only a size shown as -1 can change.",
        )


def _why_it_failed(network: Any, messages: Sequence[str], quoted: str) -> Exception:
    for text in messages:
        match = _NO_KERNEL.search(text)
        if match:
            return ModelError(
                "layers that the builder has a kernel for",
                got=_describe_layer(network, match["layer"]),
                fix="Cut the graph before it; visionrt has NMS and decoding of its own.",
            )
    if any(_TURING.search(text) for text in messages):
        return BuildError(
            "a graph that builds for SM75 (Turing)",
            got=quoted,
            fix="SM75 takes no float32 MatMul: use --precision fp16, or leave sm75 out.",
        )
    if any(_CUDA_ERROR.search(text) for text in messages):
        return MissingDependencyError(
            "a usable NVIDIA GPU to build on",
            got=quoted,
            fix="Build on a machine with the GPU and its driver, or build an rtx target.",
        )
    return _build_error(quoted)


def _describe_layer(network: Any, name: str) -> str:
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.name == name:
            kind = str(layer.type).removeprefix("LayerType.")
            origin = re.search(r"\[ONNX Layer: ([^\]]+)\]", getattr(layer, "metadata", "") or "")
            return f"{kind} node {origin[1] if origin else name!r}"
    return f"layer {name!r}"


def _build_error(quoted: str) -> BuildError:
    return BuildError(
        "the TensorRT builder to make a plan",
        got=quoted,
        fix="Try another precision or target; trtconvert check names the operators at risk.",
    )
