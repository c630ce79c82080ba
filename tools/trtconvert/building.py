"""The targets of a conversion: chosen, and checked before any long work."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence

from onnx import ModelProto

from trtconvert.heap import trim
from trtconvert.options import BuildOptions
from trtconvert.progress import Progress
from trtconvert.targets import parse_targets
from trtconvert.targets.base import BuiltPlan, ShapeRange, Target
from trtconvert.weights import WeightFile
from visionrt.backends.trt_library import TENSORRT_RTX
from visionrt.cpu_settings import CpuChoice
from visionrt.errors import UsageError
from visionrt.tuning import tune

CPU = "cpu"
_LEAST_BF16_SM = 80
_STEPS = 1000


def chosen_targets(options: BuildOptions, warnings: list[str]) -> list[Target]:
    """The targets, each of which this machine can build for; none for an ``.onnx`` output.

    Raises:
        UsageError: an unknown target, or ones that do not go with the output.
        MissingDependencyError: a library or device is missing.
    """
    targets = parse_targets(options.targets or _default_targets(options, warnings))
    gpu_targets = [target for target in targets if target.backend != CPU]
    if options.kind == "plan" and (len(gpu_targets) != 1 or len(targets) != 1):
        raise UsageError(
            "one GPU target for one raw plan",
            got=", ".join(target.name for target in targets),
            fix="Give one, as in --target rtx:sm89, or write an .engine file, which holds several.",
        )
    if options.kind == "onnx":
        return []
    if options.precision == "bf16":
        _check_bfloat16(targets)
    for target in targets:
        target.check()
    return targets


def _check_bfloat16(targets: Sequence[Target]) -> None:
    for target in targets:
        old = [sm for sm in getattr(target, "sms", ()) if int(sm) < _LEAST_BF16_SM]
        if old:
            raise UsageError(
                f"GPUs of SM{_LEAST_BF16_SM} or newer, which have bfloat16",
                got=target.name,
                fix="Use --precision fp16, or leave them out.",
            )


def _default_targets(options: BuildOptions, warnings: list[str]) -> Sequence[str]:
    if options.kind == "onnx":
        return (CPU,)
    if importlib.util.find_spec("tensorrt_rtx") is not None:
        return ("rtx",) if options.kind == "plan" else ("rtx", CPU)
    warnings.append(
        "TensorRT-RTX is not installed, so the file holds only the CPU twin; "
        'run: pip install "trtconvert[rtx]"'
    )
    return (CPU,)


def notes_on(precision: str, targets: Sequence[Target]) -> list[str]:
    """What to know about a precision on these targets, for the user."""
    if precision == "int8" and any(target.backend == TENSORRT_RTX for target in targets):
        return [
            "int8 is not known to be faster than fp16 on TensorRT-RTX, which documents int8 for "
            "weights only; compare the two with visionrt bench"
        ]
    return []


def build_plans(
    targets: Sequence[Target],
    typed: ModelProto,
    ranges: Mapping[str, ShapeRange],
    progress: Progress,
) -> list[BuiltPlan]:
    """One plan per GPU target, in order; blocks until the last is built.

    Raises:
        ModelError, BuildError, MissingDependencyError: see ``Target.build``.
    """
    model = typed.SerializeToString()
    plans = []
    for target in targets:
        if target.backend == CPU:
            continue
        stage = f"Building {target.name}"

        def report(done: float, text: str, stage: str = stage) -> bool:
            progress(stage, int(done * _STEPS), _STEPS)
            return True

        progress(stage, 0, _STEPS)
        plans.append(target.build(model, ranges, report))
        progress(stage, _STEPS, _STEPS)
    return plans


def tuned_twin(
    targets: Sequence[Target],
    twin: ModelProto,
    file: WeightFile,
    options: BuildOptions,
    progress: Progress,
    warnings: list[str],
) -> CpuChoice | None:
    """How the twin runs fastest on this machine; None where the output holds none. Blocks.

    Engines read it from ``file``. What makes the timings doubtful is added to ``warnings``.
    """
    if options.kind != "engine" or not any(target.backend == CPU for target in targets):
        return None
    trim()
    choice = tune(file.saved(twin), lambda d, n: progress("Timing the CPU twin", d, n))
    if choice.doubt:
        warnings.append(
            f"the CPU twin was timed badly: {choice.doubt}; repeat it on a quiet machine: "
            "visionrt tune ENGINE"
        )
    return choice
