"""Writes what a conversion made: an engine file, a raw plan, or the typed graph."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from onnx import ValueInfoProto

from trtconvert.building import CPU
from trtconvert.calibration.table import table_bytes
from trtconvert.graph import tensor_info
from trtconvert.options import BuildOptions
from trtconvert.precision import TypedGraph
from trtconvert.report import Report
from trtconvert.targets.base import BuiltPlan, ShapeRange, Target
from visionrt.atomic import write_bytes
from visionrt.cpu_settings import CpuChoice
from visionrt.engine_file import write_engine_file
from visionrt.errors import InputDataError
from visionrt.manifest import Manifest, TensorInfo
from visionrt.version import __version__

TWIN = "model.onnx"
TYPED = "typed.onnx"
REPORT = "report.json"
RANGES = "ranges.json"


def check_output(options: BuildOptions) -> None:
    """Refuse an output that cannot be written, before hours go into making it.

    Raises:
        InputDataError: no such folder, not writable, or less room than the model itself takes.
    """
    path, folder = options.output, options.output.absolute().parent
    if not folder.is_dir():
        raise _cannot_write(path, f"no folder {folder}", f"Make it first: mkdir -p {folder}")
    if path.exists() and options.model.exists() and path.samefile(options.model):
        raise _cannot_write(path, "the model itself", "Choose another name.")
    if path.is_dir():
        raise _cannot_write(path, "a folder of that name", "Choose another name.")
    if not os.access(folder, os.W_OK):
        raise _cannot_write(path, "a folder that is read-only", "Choose another folder.")
    if options.model.is_file():
        needed, free = options.model.stat().st_size, shutil.disk_usage(folder).free
        if free < needed:
            raise _cannot_write(
                path,
                f"{free / 2**20:.0f} MiB of free space where {needed / 2**20:.0f} are too few",
                "Free some space, or choose another disk.",
            )


def write_output(
    options: BuildOptions,
    source: Mapping[str, str],
    typed: TypedGraph,
    ranges: Mapping[str, ShapeRange],
    targets: Sequence[Target],
    plans: Sequence[BuiltPlan],
    report: Report,
    cpu: CpuChoice | None,
) -> None:
    """Write the file atomically.

    Args:
        source: what :attr:`trtconvert.load.LoadedModel.source` says of the model.

    Raises:
        InputDataError: the disk is full; nothing is left behind.
    """
    if options.kind == "plan":
        write_bytes(options.output, plans[0].data)
    elif options.kind == "onnx":
        write_bytes(options.output, typed.model.SerializeToString())
    else:
        _write_engine(options, source, typed, ranges, targets, plans, report, cpu)


def _write_engine(
    options: BuildOptions,
    source: Mapping[str, str],
    typed: TypedGraph,
    ranges: Mapping[str, ShapeRange],
    targets: Sequence[Target],
    plans: Sequence[BuiltPlan],
    report: Report,
    cpu: CpuChoice | None,
) -> None:
    members: dict[str, bytes] = {}
    typed_bytes = typed.model.SerializeToString()
    twin_member, typed_member = None, TYPED
    if any(target.backend == CPU for target in targets):
        twin_member = TWIN
        members[TWIN] = typed.twin.SerializeToString()
        typed_member = TWIN if members[TWIN] == typed_bytes else TYPED
    if typed_member == TYPED:
        members[TYPED] = typed_bytes
    members |= {plan.info.member: plan.data for plan in plans}
    if typed.thresholds and typed.calibration is not None:
        members[RANGES] = table_bytes(
            *(typed.thresholds, typed.calibration.method, report.recipe.preprocess),
            typed.channel_factors,
        )
    members[REPORT] = report.to_bytes()
    manifest = Manifest(
        name=Path(options.model).stem,
        created_by=f"trtconvert {__version__}",
        precision=report.precision,
        twin_precision=typed.twin_precision,
        recipe=report.recipe,
        inputs=_infos(typed.model.graph.input),
        outputs=_infos(typed.model.graph.output),
        source=dict(source),
        twin=twin_member,
        typed_graph=typed_member,
        plans=tuple(plan.info for plan in plans),
        shapes={name: (size.min, size.opt, size.max) for name, size in ranges.items()},
        cpu=cpu,
    )
    write_engine_file(options.output, manifest, members)


def _infos(values: Iterable[ValueInfoProto]) -> tuple[TensorInfo, ...]:
    return tuple(tensor_info(value) for value in values)


def _cannot_write(path: Path, got: str, fix: str) -> InputDataError:
    return InputDataError(f"to write {path}", got=got, fix=fix)
