"""Builds a plan for this machine's GPU from the typed graph of an engine file, and keeps it.

The builder runs in a process of its own, started by name: the runtime never imports the converter.
That process can crash or be killed without harm here, and ends with this one. A plan is kept by
everything that it depends on (:func:`cache_key`), so it is built once per machine and upgrade.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from visionrt import errors, plan_cache
from visionrt.backends.base import Backend
from visionrt.backends.trt_library import TENSORRT, TENSORRT_RTX, load_library, member
from visionrt.child_python import child_python
from visionrt.device import GpuInfo
from visionrt.engine_file import EngineFile
from visionrt.errors import (
    BuildError,
    EngineFileError,
    InputDataError,
    MissingDependencyError,
    VisionrtError,
)
from visionrt.manifest import Manifest, PlanInfo, ShapeLimits
from visionrt.plan_cache import PlanCache

_BUILDER = "from trtconvert.targets.rebuild import main; main()"
_QUOTED_STDERR_BYTES = 2000
_LARGEST_BATCH = 8  # where the file does not say for which shapes its plans were built


@dataclass(frozen=True)
class RebuiltPlan:
    """A plan for this machine.

    Attributes:
        data: the builder's bytes.
        info: as the manifest describes plans.
        was_kept: whether it came from the cache, where one that the library refuses may be old.
        note: for people: where it comes from.
    """

    data: bytes
    info: PlanInfo
    was_kept: bool
    note: str


def rebuilding_problem(manifest: Manifest) -> str:
    """Why no plan can be built from a file, in words; empty when one may be."""
    if manifest.typed_graph is None:
        return "the file holds no typed graph"
    return ""


def usable_builders(manifest: Manifest, gpu: GpuInfo) -> tuple[list[str], str]:
    """The libraries that may build for a GPU, those of the file's own plans first.

    Returns:
        Names of libraries, and in words what is wrong with those that are not among them.
    """
    wanted = [plan.backend for plan in manifest.plans]
    names, problems = [], []
    for name in dict.fromkeys([*wanted, TENSORRT_RTX, TENSORRT]):
        try:
            library = load_library(name)
        except MissingDependencyError as error:
            problems.append(f"{error.got}. {error.fix}".rstrip("."))
            continue
        if name == TENSORRT_RTX and not _builds_for(library, gpu.compute_capability):
            problems.append(f"{name} does not build for SM{gpu.compute_capability}")
        else:
            names.append(name)
    return names, "; ".join(problems)


def cache_key(manifest: Manifest, library: str, library_version: str, gpu: GpuInfo) -> str:
    """The name of a plan in the cache: GPU, driver, library, graph and shapes."""
    assert manifest.typed_graph is not None
    return plan_cache.key_of(
        {
            "gpu": gpu.name,
            "compute_capability": gpu.compute_capability,
            "driver": gpu.driver_version,
            "library": library,
            "library_version": library_version,
            "graph": manifest.members[manifest.typed_graph].sha256,
            "shapes": shape_limits(manifest),
        }
    )


def shape_limits(manifest: Manifest) -> dict[str, ShapeLimits]:
    """Smallest, most common and largest shape of each input to build for.

    What the file says; a file that does not was written before files did, and then only the batch
    varies, since every image is brought to one size.
    """
    if manifest.shapes:
        return dict(manifest.shapes)
    limits = {}
    for tensor in manifest.inputs:
        wanted = manifest.recipe.preprocess.tensor_shape(1)
        batches = (1, 1, _LARGEST_BATCH)
        shapes = [
            tuple(
                size if isinstance(size, int) else batch if axis == 0 else wanted[axis]
                for axis, size in enumerate(tensor.shape)
            )
            for batch in batches
        ]
        limits[tensor.name] = (shapes[0], shapes[1], shapes[2])
    return limits


def rebuilt_plan(file: EngineFile, library: str, gpu: GpuInfo, cache: PlanCache) -> RebuiltPlan:
    """A plan by a library for a GPU: the one that was kept, or a new one. Blocks.

    While another process builds the same plan, this waits and takes that one. An interrupt ends
    the build and leaves nothing behind.

    Raises:
        BuildError: the builder failed, or its process did.
        MissingDependencyError: something that the builder needs is not here.
        ModelError: the builder refuses the graph.
    """
    version = str(load_library(library).__version__)
    key = cache_key(file.manifest, library, version, gpu)
    with contextlib.ExitStack() as stack:
        not_kept = ""
        try:
            found = _kept(cache, key)
            if found is None:
                stack.enter_context(cache.locked(key))
                found = _kept(cache, key)  # by the process that held the lock before
        except InputDataError as error:
            # A build costs time, not the model.
            found, not_kept = None, f"{error.expected}: {error.got}"
        if found is not None:
            return found
        plan, info = _build(file, library, gpu)
        if not not_kept:
            try:
                cache.write(key, {"plan": dataclasses.asdict(info)}, plan)
            except InputDataError as error:
                not_kept = f"{error.expected}: {error.got}"
    where = f"not kept ({not_kept})" if not_kept else f"kept in {cache.folder}"
    note = f"rebuilt: from {file.manifest.typed_graph} in {info.build_seconds:.1f} s, {where}"
    return RebuiltPlan(plan, info, False, note)


def open_rebuilt(file: EngineFile, library: str, gpu: GpuInfo, lanes: int) -> tuple[Backend, str]:
    """A back end on a plan for this machine, and a line for people; see :func:`rebuilt_plan`.

    Raises:
        BuildError, MissingDependencyError, ModelError: see :func:`rebuilt_plan`.
        EngineFileError: the library does not load what it built.
    """
    from visionrt.backends.tensorrt import open_plan

    cache = PlanCache(plan_cache.cache_folder())
    device = f"cuda:{gpu.index}"
    plan = rebuilt_plan(file, library, gpu, cache)
    try:
        return open_plan(plan.data, info=plan.info, device=device, lanes=lanes), plan.note
    except EngineFileError as error:
        if not plan.was_kept:
            raise
        # Something that the key does not tell has changed since: build it again, once.
        try:
            version = str(load_library(library).__version__)
            cache.remove(cache_key(file.manifest, library, version, gpu))
        except InputDataError as refusal:
            raise error from refusal
    plan = rebuilt_plan(file, library, gpu, cache)
    return open_plan(plan.data, info=plan.info, device=device, lanes=lanes), plan.note


def _kept(cache: PlanCache, key: str) -> RebuiltPlan | None:
    entry = cache.read(key)
    if entry is None:
        return None
    try:
        info = PlanInfo.from_json(entry.header["plan"])
    except (KeyError, TypeError):
        cache.remove(key)
        return None
    return RebuiltPlan(entry.data, info, True, f"rebuilt: earlier, kept in {cache.folder}")


def _builds_for(library: Any, compute_capability: str) -> bool:
    return member(library.ComputeCapability, f"SM{compute_capability}") is not None


def _build(file: EngineFile, library: str, gpu: GpuInfo) -> tuple[bytes, PlanInfo]:
    assert file.manifest.typed_graph is not None
    graph = file.read(file.manifest.typed_graph)
    request = {
        "library": library,
        "compute_capability": gpu.compute_capability,
        "shapes": shape_limits(file.manifest),
        "graph_bytes": len(graph),
    }
    start = time.perf_counter()
    version, plan = _build_in_child(request, graph, _environment_for(library, gpu.index))
    seconds = round(time.perf_counter() - start, 3)
    sm = gpu.compute_capability
    target = TENSORRT if library == TENSORRT else f"rtx:sm{sm}"
    member_name = f"plans/rebuilt-{library}-sm{sm}.plan"
    return plan, PlanInfo(member_name, library, target, version, (sm,), seconds)


def _environment_for(library: str, index: int) -> dict[str, str]:
    """What makes the child see one GPU: full TensorRT builds on and for device 0."""
    if library == TENSORRT_RTX:
        return {"CUDA_VISIBLE_DEVICES": "-1"}  # needs none, and takes no memory of one then
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": visible[index] if index < len(visible) else str(index)}


def _build_in_child(
    request: Mapping[str, Any], graph: bytes, changes: Mapping[str, str]
) -> tuple[str, bytes]:
    """The builder's version, and the plan; see ``trtconvert.targets.rebuild`` for the protocol."""
    command, environment = child_python(_BUILDER)
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**environment, **changes},
            # A Ctrl-C in the terminal goes to this process alone, which then kills the child.
            start_new_session=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it died: its status says more
                child.stdin.write(json.dumps(request).encode() + b"\n")
                child.stdin.write(graph)
                child.stdin.flush()  # and stays open: its end tells the child that this one ended
            answer = child.stdout.readline()
            plan = child.stdout.read()
            if not answer:
                raise _crashed(child.wait(), stderr)
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
    return _unpack(answer, plan)


def _unpack(line: bytes, plan: bytes) -> tuple[str, bytes]:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise BuildError(
            "an answer from the builder process",
            got=repr(line[:100]),
            fix="Look for a sitecustomize or .pth file that prints when Python starts.",
        ) from error
    if "error" not in answer:
        if len(plan) != answer["plan_bytes"]:
            raise BuildError(
                f"a plan of {answer['plan_bytes']} bytes from the builder process",
                got=f"{len(plan)} bytes",
                fix="Try again; it was ended while it wrote.",
            )
        return str(answer["library_version"]), plan
    kind = getattr(errors, answer["error"], BuildError)
    told: VisionrtError = kind(answer["expected"], got=answer["got"], fix=answer["fix"])
    if isinstance(told, errors.UsageError):
        # The caller asked for no shapes or flags: here it is the file that does not fit.
        told = BuildError(told.expected, got=told.got, fix="Build the engine file again.")
    raise told


def _crashed(code: int, stderr: IO[bytes]) -> BuildError:
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, stderr.tell() - _QUOTED_STDERR_BYTES))
    words = " ".join(stderr.read().decode(errors="replace").split())
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return BuildError(
        "the builder process to live until the plan was made",
        got=f"{cause}{': ' + words if words else ''}",
        fix="Close other programs if memory was short, or load with rebuild=False.",
    )
