"""Opens a file and chooses what runs it: a usable GPU plan, a rebuilt one, or the CPU twin."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionrt.backends.base import Backend
from visionrt.cpu_way import CpuWay, cpu_way
from visionrt.engine_file import EngineFile
from visionrt.errors import (
    BuildError,
    EngineFileError,
    MissingDependencyError,
    ModelError,
    UsageError,
    VisionrtError,
)
from visionrt.manifest import Manifest, PlanInfo
from visionrt.model import WORKERS, Model
from visionrt.recipe import Recipe

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_ZIP_MAGIC = b"PK"


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    backend: str | None = None,
    threads: int | None = None,
    recipe: Recipe | None = None,
    rebuild: bool = True,
    decode: str = "auto",
) -> Model:
    """Open an engine file, a raw plan, an Ultralytics engine, or an ONNX model. Blocks.

    Args:
        path: of the file; what it is is told from its content.
        device: ``auto`` (a GPU if a plan in the file can run here, else the CPU), ``cpu``, or
            ``cuda:N``, which never falls back to the CPU.
        backend: ``onnxruntime`` or ``openvino``, for the CPU; means ``device="cpu"`` when that is
            ``auto``.
        threads: that one run on the CPU may use; default: the back end's choice.
        recipe: replaces the file's; needed where the file has none (raw plans, ONNX).
        rebuild: whether a file without a plan for this GPU may have one built from its typed graph,
            which takes seconds to minutes, once: it is kept in ``$VISIONRT_CACHE``, or in
            ``visionrt/plans`` of the user's cache folder. Where that fails, the CPU twin runs.
        decode: whether JPEGs may be decoded at a smaller scale: ``auto``, ``scaled`` or ``exact``;
            see :class:`visionrt.model.Model`.

    Raises:
        BuildError: ``cuda:N`` was asked for, and no plan could be built for it.
        EngineFileError: damaged, unsafe, of a newer version, or without anything for ``device``.
        MissingDependencyError: a library, driver or GPU that ``device`` needs is not here.
        ModelError: the back end refuses the graph, or it does not fit the recipe.
        UsageError: a bad ``device``, ``backend``, ``threads`` or ``decode``, or no recipe.
    """
    if not _DEVICE.fullmatch(device):
        raise UsageError(
            "device: auto, cpu, cuda or cuda:N", got=repr(device), fix="Name one of them."
        )
    if backend is not None and device.startswith("cuda"):
        raise UsageError(
            f"no backend with device {device}: a plan names its own",
            got=repr(backend),
            fix='Leave it out, or give device="cpu".',
        )
    if device == "cuda":
        device = "cuda:0"
    if backend is not None:
        device = "cpu"
    path = Path(path)
    magic = _first_bytes(path)
    if magic.startswith(_ZIP_MAGIC):
        return _load_engine_file(path, device, backend, threads, recipe, rebuild, decode)
    if path.suffix.lower() == ".onnx":
        return _load_onnx(path, device, backend, threads, recipe, decode)
    return _load_plan(path, device, recipe, decode)


@dataclass(frozen=True)
class Candidate:
    """Something in the file that could run it: what it is, and how to open it."""

    title: str
    open: Callable[[], Backend]


def first_usable(
    candidates: Iterable[Candidate], skipped: Sequence[str] = ()
) -> tuple[Backend, list[str]]:
    """Open the first candidate that opens, with a line of explanation for each up to it.

    ``skipped`` holds such lines for what is no candidate; an error quotes them too.

    Raises:
        VisionrtError: none did. The last one's error class, with the reasons of all.
    """
    notes: list[str] = []
    last: VisionrtError | None = None
    for candidate in candidates:
        try:
            backend = candidate.open()
        except (MissingDependencyError, EngineFileError, ModelError, BuildError) as error:
            notes.append(f"not used: {candidate.title}: {error.got}")
            last = error
        else:
            used = f"used: {candidate.title}, by {backend.name} on {backend.device}"
            return backend, [used, *notes]
    if last is None:
        raise EngineFileError(
            "something to run on this device", got="nothing", fix="Build with more targets."
        )
    notes = [*skipped, *notes]
    if len(notes) == 1:
        raise last
    raise type(last)(last.expected, got="; ".join(notes), fix=last.fix) from last


def _load_engine_file(
    path: Path,
    device: str,
    backend: str | None,
    threads: int | None,
    recipe: Recipe | None,
    rebuild: bool,
    decode: str,
) -> Model:
    _check_gpu_options(threads, device)
    with EngineFile(path) as file:
        manifest = file.manifest
        notes: list[str] = []
        rebuilt: list[str] = []
        way = cpu_way(backend, threads, manifest.cpu)

        def candidates() -> Iterator[Candidate]:
            """In order of preference; what is not tried is not looked for."""
            count = 0
            if device == "cpu":
                notes.extend(
                    f"not used: {_title(p)}: the CPU was asked for" for p in manifest.plans
                )
            else:
                gpu = "cuda:0" if device == "auto" else device
                for candidate in _plan_candidates(file, gpu, notes):
                    count += 1
                    yield candidate
                for candidate in _rebuild_candidates(file, gpu, rebuild, notes, rebuilt):
                    count += 1
                    yield candidate
            twin = manifest.twin
            if not device.startswith("cuda") and twin is not None:
                count += 1
                yield Candidate(_twin_title(manifest), lambda: way.open(file.read(twin)))
            if not count:
                raise _nothing_runs(manifest, path, device, notes)

        opened, lines = first_usable(candidates(), notes)
    lines += rebuilt
    if manifest.twin is not None and opened.device != "cpu":
        reason = "a plan can run" if device == "auto" else f"{device} was asked for"
        lines.append(f"not used: {_twin_title(manifest)}: {reason}")
    if opened.device != "cpu":
        return _model(recipe or manifest.recipe, opened, manifest.name, [*lines, *notes], decode)

    def graph() -> bytes:
        with EngineFile(path) as again:
            if again.manifest.twin is None or again.manifest.source != manifest.source:
                raise EngineFileError(
                    f"{path} to be the file that was loaded", got="another", fix="Load it again."
                )
            return again.read(again.manifest.twin)

    lines += [way.note, *notes]
    return _model(recipe or manifest.recipe, opened, manifest.name, lines, decode, way, graph)


def _plan_candidates(file: EngineFile, device: str, notes: list[str]) -> Iterator[Candidate]:
    """A candidate per plan that may run here; ``notes`` gets why each other one cannot."""
    if not file.manifest.plans:
        return
    from visionrt.backends.tensorrt import open_plan, plan_problem

    def opener(plan: PlanInfo) -> Callable[[], Backend]:
        return lambda: open_plan(file.read(plan.member), info=plan, device=device, lanes=WORKERS)

    usable = []
    for plan in file.manifest.plans:
        # Told from the manifest: a large member is not read and hashed in vain.
        problem = plan_problem(plan, device)
        if problem:
            notes.append(f"not used: {_title(plan)}: {problem}")
        else:
            usable.append(Candidate(_title(plan), opener(plan)))
    yield from usable


def _rebuild_candidates(
    file: EngineFile, device: str, rebuild: bool, notes: list[str], told: list[str]
) -> Iterator[Candidate]:
    """A candidate per library that may build a plan for the GPU; ``notes`` gets why there is none.

    ``told`` gets a line for people when one is opened.
    """
    from visionrt import rebuilding
    from visionrt.device import device_index, gpu_info

    try:
        gpu = gpu_info(device_index(device))
    except MissingDependencyError:
        return  # where there are plans, their notes have said so
    libraries: list[str] = []
    problem = rebuilding.rebuilding_problem(file.manifest)
    if not rebuild:
        problem = "rebuild=False"
    elif not problem:
        libraries, problem = rebuilding.usable_builders(file.manifest, gpu)
    if not libraries:
        notes.append(f"not used: a rebuilt plan: {problem}")

    def opener(library: str) -> Callable[[], Backend]:
        def open_it() -> Backend:
            backend, note = rebuilding.open_rebuilt(file, library, gpu, WORKERS)
            told.append(note)
            return backend

        return open_it

    for library in libraries:
        title = f"plan rebuilt by {library} for SM{gpu.compute_capability}"
        yield Candidate(title, opener(library))


def _nothing_runs(manifest: Manifest, path: Path, device: str, notes: list[str]) -> VisionrtError:
    if notes and device != "cpu":
        reasons = [note.removeprefix("not used: ").rstrip(".") for note in notes]
        return MissingDependencyError(
            f"a GPU that can run a plan of {path.name}",
            got="; ".join(reasons),
            fix='Run visionrt doctor, or load with device="cpu" if the file has a CPU twin.',
        )
    has = ", ".join(plan.target for plan in manifest.plans) or "only a CPU twin"
    return EngineFileError(
        f"something in {path.name} that runs on {device}",
        got=f"a file built for {has}",
        fix="Build it with --target cpu." if device == "cpu" else "Build it with a GPU target.",
    )


def _load_onnx(
    path: Path,
    device: str,
    backend: str | None,
    threads: int | None,
    recipe: Recipe | None,
    decode: str,
) -> Model:
    if recipe is None:
        raise _no_recipe(path, "Give a recipe, or convert the model with trtconvert build.")
    if device.startswith("cuda"):
        raise EngineFileError(
            f"a plan in {path.name} for {device}",
            got="an ONNX model, which runs on the CPU",
            fix="Convert it with trtconvert build.",
        )
    way = cpu_way(backend, threads, None)
    opened, lines = first_usable([Candidate("ONNX model", lambda: way.open(path))])
    lines.append(way.note)
    return _model(recipe, opened, path.stem, lines, decode, way, lambda: path)


def _load_plan(path: Path, device: str, recipe: Recipe | None, decode: str) -> Model:
    from visionrt import plan_header

    with _reading(path):
        data = path.read_bytes()
    header = plan_header.describe(data)
    if header.kind == plan_header.ULTRALYTICS:
        metadata, data = plan_header.split_ultralytics(data)
        if recipe is None:
            from visionrt.ultralytics import recipe_from_metadata

            recipe = recipe_from_metadata(metadata)
    elif header.kind == plan_header.ONNX:
        raise UsageError(
            "an ONNX model in a file that ends in .onnx", got=path.name, fix="Rename it."
        )
    elif not header.library:
        raise EngineFileError(
            f"an engine file, a TensorRT plan or an ONNX model at {path}",
            got=str(header),
            fix="Check the path; build engine files with trtconvert build.",
        )
    if device == "cpu":
        raise EngineFileError(
            f"something in {path.name} that runs on the CPU",
            got=str(header),
            fix="Build an engine file with --target cpu from the ONNX model.",
        )
    if recipe is None:
        raise _no_recipe(path, "Give a recipe: a plan does not say how images go in and out.")
    gpu = "cuda:0" if device == "auto" else device

    def open_it() -> Backend:
        from visionrt.backends.tensorrt import open_plan

        return open_plan(data, info=None, device=gpu, lanes=WORKERS)

    opened, lines = first_usable([Candidate(str(header), open_it)])
    return _model(recipe, opened, path.stem, lines, decode)


def _model(
    recipe: Recipe,
    backend: Backend,
    name: str,
    notes: list[str],
    decode: str,
    way: CpuWay | None = None,
    graph: Callable[[], bytes | Path] | None = None,
) -> Model:
    workers, for_streams = WORKERS, None
    if way is not None and graph is not None:
        workers = max(WORKERS, way.stream.streams)
        if way.stream != way.call:
            chosen = way

            def for_streams() -> Backend:
                return chosen.open_for_streams(graph())

    try:
        return Model(
            recipe,
            backend,
            name=name,
            notes=notes,
            workers=workers,
            decode=decode,
            open_for_streams=for_streams,
        )
    except BaseException:
        backend.close()
        raise


def _title(plan: PlanInfo) -> str:
    return f"{plan.target} plan ({plan.backend} {plan.library_version})"


def _twin_title(manifest: Manifest) -> str:
    return f"CPU twin ({manifest.twin_precision})"


def _check_gpu_options(threads: int | None, device: str) -> None:
    if threads is not None and device.startswith("cuda"):
        raise UsageError(
            f"no threads with device {device}", got=str(threads), fix='Use device="cpu".'
        )


def _no_recipe(path: Path, fix: str) -> UsageError:
    return UsageError(f"a recipe for {path.name}, which has none inside", got="none", fix=fix)


def _first_bytes(path: Path) -> bytes:
    with _reading(path), path.open("rb") as stream:
        return stream.read(len(_ZIP_MAGIC))


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise EngineFileError(
            f"a readable engine file at {path}",
            got=(getattr(error, "strerror", None) or str(error)).lower(),
            fix="Check the path.",
        ) from error
