"""Whether a model will build for a target, and what to change where it will not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto, NodeProto

from trtconvert.building import CPU
from trtconvert.graph import all_nodes, node_label, one_line
from trtconvert.qdq_problems import qdq_problems
from trtconvert.targets.base import Target
from trtconvert.targets.trt_builder import describe_parser_error, strongly_typed_flag
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.backends.trt_library import TENSORRT_RTX, load_library, logger_of
from visionrt.errors import MissingDependencyError, ModelError

_OUTSIDE = "Cut it off with --nms outside: visionrt runs NMS outside the engine."
_TWO_STAGES = (
    "A second stage reads what an NMS chose, so nothing can be cut off: build it with --target cpu."
)
_CUT = "Cut the graph before this node (--outputs), or rewrite it with supported operators."
_SELECT = "Cut the graph before this node with --outputs, or rewrite it without selections."
# What an NMS brings with it goes when the NMS goes.
_BY_AN_NMS = (_OUTSIDE, _SELECT)
_SYMMETRIC = "Quantize symmetrically to int8, or convert the float model."
# Operators that a TensorRT-RTX parser takes, or refuses in words that do not help, and that its
# builder has no kernel for; established by building each.
_RTX_REFUSES = {
    "NonMaxSuppression": ("TensorRT-RTX has no NMS layer", _OUTSIDE),
    "NonZero": ("the number of its results depends on the data", _SELECT),
    "RoiAlign": ("it needs a driver to build", _SELECT),
    "DeformConv": ("no kernel", _CUT),
    "DynamicQuantizeLinear": ("TensorRT takes static symmetric quantization only", _CUT),
    "ConvInteger": ("TensorRT takes quantization as Q/DQ pairs only", _CUT),
    "MatMulInteger": ("TensorRT takes quantization as Q/DQ pairs only", _CUT),
}


@dataclass(frozen=True)
class Problem:
    """What stands in the way, where, and what to do."""

    node: str
    reason: str
    fix: str


@dataclass(frozen=True)
class TargetCheck:
    """The verdict for one target: it builds when nothing is missing and there are no problems.

    Attributes:
        target: as given to ``--target``.
        missing: what this machine lacks to build it, or an empty string.
        problems: with the model.
    """

    target: str
    missing: str
    problems: tuple[Problem, ...]

    @property
    def builds(self) -> bool:
        """Whether a build is expected to succeed on this machine."""
        return not self.missing and not self.problems

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        problems = [dict(vars(problem)) for problem in self.problems]
        return {
            "target": self.target,
            "builds": self.builds,
            "missing": self.missing,
            "problems": problems,
        }


def check_target(clean: ModelProto, target: Target) -> TargetCheck:
    """Check one target without building it.

    Args:
        clean: the cleaned graph.
        target: need not be buildable on this machine.
    """
    try:
        target.check()
        missing = ""
    except MissingDependencyError as error:
        missing = f"{error.expected}: {error.got}. {error.fix}"
    if target.backend == CPU:
        return TargetCheck(target.name, missing, tuple(_cpu_problems(clean)))
    problems = list(known_problems(clean))
    if target.backend == TENSORRT_RTX and not missing:
        named = {problem.node for problem in problems}
        problems += [p for p in _parser_problems(clean) if p.node not in named]
    return TargetCheck(target.name, missing, tuple(problems))


def refuse_known(clean: ModelProto, targets: Sequence[Target]) -> None:
    """Stop before any long work when a GPU target cannot take an operator.

    Raises:
        ModelError: with the first such node and the reason.
    """
    gpu = [target for target in targets if target.backend != CPU]
    is_rtx = any(target.backend == TENSORRT_RTX for target in gpu)
    problems = known_problems(clean) if is_rtx else _quantized_wrongly(clean)
    for problem in problems if gpu else ():
        raise ModelError(
            f"operators that {gpu[0].name} can build",
            got=f"{problem.node}: {problem.reason}",
            fix=f"{problem.fix} Or build --target cpu alone.",
        )


def known_problems(model: ModelProto) -> Iterator[Problem]:
    """Nodes that a TensorRT-RTX builder is known to refuse."""
    nodes = list(all_nodes(model.graph))
    operators = {node.op_type for node in nodes}
    instead = ""
    if "NonMaxSuppression" in operators:
        instead = _TWO_STAGES if "RoiAlign" in operators else _OUTSIDE
    for node in nodes:
        found = _RTX_REFUSES.get(node.op_type)
        if found is not None and node.domain == "":
            reason, fix = found
            fix = instead if instead and fix in _BY_AN_NMS else fix
            yield Problem(node_label(node), reason, fix)
        elif node.op_type == "Resize" and _is_antialiased(node):
            yield Problem(node_label(node), "antialiased resizing has no kernel", _CUT)
    yield from _quantized_wrongly(model)


def _quantized_wrongly(model: ModelProto) -> Iterator[Problem]:
    for node, reason in qdq_problems(model):
        yield Problem(node_label(node), reason, _SYMMETRIC)


def _is_antialiased(node: NodeProto) -> bool:
    return any(a.name == "antialias" and a.i for a in node.attribute)


def _parser_problems(model: ModelProto) -> Iterator[Problem]:
    """What TensorRT-RTX's own parser says, node by node."""
    library = load_library(TENSORRT_RTX)
    logger, _ = logger_of(library)
    builder = library.Builder(logger)
    network = builder.create_network(strongly_typed_flag(library))
    # The parser does not keep the network alive.
    parser = library.OnnxParser(network, logger)
    if parser.supports_model_v2(model.SerializeToString()):
        return
    for index in range(parser.num_errors):
        parser_error = parser.get_error(index)
        position = parser_error.node()
        inside = 0 <= position < len(model.graph.node) and parser_error.node_operator()
        label = node_label(model.graph.node[position]) if inside else "the graph"
        yield Problem(label, describe_parser_error(parser_error), _CUT)


def _cpu_problems(model: ModelProto) -> Iterator[Problem]:
    try:
        OnnxRuntimeBackend(model.SerializeToString()).close()
    except ModelError as error:
        yield Problem("the graph", one_line(error), error.fix)
