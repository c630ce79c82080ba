"""Runs a plan on an NVIDIA GPU, by TensorRT 10.12 or later, TensorRT 11 or TensorRT-RTX."""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from numpy.typing import NDArray

from visionrt import _core
from visionrt.backends.feeds import check_feeds, closed
from visionrt.backends.trt_context import ContextMaker
from visionrt.backends.trt_io import IoTensor, read_profiles, read_tensors
from visionrt.backends.trt_kernels import KernelCache
from visionrt.backends.trt_lane import Lane, device_problem
from visionrt.backends.trt_library import TENSORRT, create, load_library, logger_of
from visionrt.device import Device, close_with, device_index, gpu_info, open_device
from visionrt.errors import (
    EngineFileError,
    MissingDependencyError,
    UsageError,
)
from visionrt.manifest import PlanInfo
from visionrt.plan_header import (
    ULTRALYTICS,
    PlanHeader,
    describe,
    loading_problem,
    split_ultralytics,
)


def plan_problem(info: PlanInfo, device: str = "cuda:0") -> str:
    """Why the plan that ``info`` describes cannot run here, in words; empty when it may.

    Needs only the manifest, so that a large member is not read in vain.

    Raises:
        UsageError: ``device`` is not spelled as a GPU.
    """
    try:
        # The GPU first: looking for one costs less than loading a library that cannot be used.
        gpu = gpu_info(device_index(device))
        library = load_library(info.backend)
    except MissingDependencyError as error:
        return f"{error.got}. {error.fix}"
    return loading_problem(
        _header_of(info),
        library=info.backend,
        library_version=library.__version__,
        compute_capability=gpu.compute_capability,
    )


def open_plan(
    plan: bytes, *, info: PlanInfo | None = None, device: str = "cuda:0", lanes: int = 1
) -> TensorRTBackend:
    """Load a plan; blocks until it is ready to run.

    Args:
        plan: the builder's bytes; Ultralytics metadata in front of them is skipped.
        info: what the manifest says of it; None for a raw plan.
        device: ``cuda`` or ``cuda:N``.
        lanes: how many calls may run at once; each has its own context and GPU memory.

    Raises:
        EngineFileError: not a plan, cut off, or refused by the library.
        MissingDependencyError: the library, PyCUDA, the driver or the GPU is missing, or is not
            the one the plan was built for, or has too little memory.
    """
    header = describe(plan)
    if header.kind == ULTRALYTICS:
        plan = split_ultralytics(plan)[1]
        header = describe(plan)
    if not header.library or header.missing_bytes:
        cut_off = f", cut off by {header.missing_bytes} bytes" if header.missing_bytes else ""
        raise EngineFileError(
            "a TensorRT or TensorRT-RTX plan",
            got=f"{header}{cut_off}",
            fix="Build the plan again, or load the ONNX model or engine file by its path.",
        )
    library = load_library(header.library)
    gpu = open_device(device_index(device))
    for known in (header, _header_of(info)) if info is not None else (header,):
        problem = loading_problem(
            known,
            library=header.library,
            library_version=library.__version__,
            compute_capability=gpu.info.compute_capability,
        )
        if problem:
            raise MissingDependencyError(
                f"a plan for {gpu.info.name} (SM{gpu.info.compute_capability}) "
                f"and {header.library} {library.__version__}",
                got=f"a plan that cannot load: {problem}",
                fix="Build it again on this machine, or add this GPU with --target.",
            )
    return TensorRTBackend(library, plan, header, gpu, lanes)


def _header_of(info: PlanInfo) -> PlanHeader:
    return PlanHeader(info.backend, info.library_version, info.compute_capabilities)


class TensorRTBackend:
    """A loaded plan; see ``backends.base.Backend``. Get it from :func:`open_plan`."""

    def __init__(
        self, library: Any, plan: bytes, header: PlanHeader, device: Device, lanes: int
    ) -> None:
        if lanes < 1:
            raise UsageError("at least one lane", got=str(lanes), fix="Give a number above 0.")
        self.name = header.library
        self.device = f"cuda:{device.info.index}"
        self._engine = _Engine(library, plan, header, device, lanes)
        tensors = self._engine.tensors
        self.inputs = tuple(t.info() for t in tensors if t.is_input)
        self.outputs = tuple(t.info() for t in tensors if not t.is_input)
        self.max_batch = self._engine.max_batch
        self._close = close_with(self, self._engine.close)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; blocks until the outputs are in host memory. Safe from several threads.

        Raises:
            InputDataError: a missing input, or a wrong dtype or shape.
            MissingDependencyError: the GPU or its memory failed.
            UsageError: after :meth:`close`.
        """
        check_feeds(self.inputs, feeds)
        return self._engine.run(feeds)

    def device_problem(self) -> str:
        """Why frames cannot stay on the device around this engine; empty when they can."""
        if not _core.has_kernels():
            return "this build of visionrt holds no CUDA kernels"
        return _core.driver_problem() or device_problem(self._engine.tensors)

    def lane(self) -> AbstractContextManager[Lane]:
        """A lane for the duration of a ``with`` block; blocks until one is free.

        Raises:
            UsageError: after :meth:`close`.
        """
        return self._engine.lane()

    def close(self) -> None:
        """Wait for running calls and release the engine. May be called twice."""
        self._close()


class _Engine:
    """Runtime, engine and lanes, released in the order that TensorRT asks for."""

    tensors: tuple[IoTensor, ...]
    max_batch: int | None

    def __init__(
        self, library: Any, plan: bytes, header: PlanHeader, device: Device, lanes: int
    ) -> None:
        logger, log = logger_of(library)
        mark = log.mark()
        self._name = header.library
        self._device = device
        self._maker: ContextMaker | None = None
        self._kernels = KernelCache(library, plan, device.info)
        self._open_lanes: list[Lane] = []
        self._free_lanes: queue.LifoQueue[Lane | None] = queue.LifoQueue()
        self._closing = threading.Lock()
        try:
            with device.current():
                if header.library == TENSORRT:
                    # Plans of other tools may use the plugins that the library ships.
                    library.init_libnvinfer_plugins(logger, "")
                self._runtime = create(library, "Runtime")
                self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise EngineFileError(
                    f"a plan that {header.library} {library.__version__} loads",
                    got=f"{header}: {log.quote_since(mark)}",
                    fix="Build it again with this version, on a machine with this GPU.",
                )
            self.tensors = read_tensors(library, self._engine)
            profiles = read_profiles(self._engine, [t for t in self.tensors if t.is_input])
            largest = [high[0] for p in profiles for _, high in p.limits.values() if high]
            self.max_batch = max(largest, default=None)
            with device.current():
                self._maker = ContextMaker(library, self._engine, log, self._kernels.read())
            for _ in range(lanes):
                lane = Lane(library, self._maker, device, self.tensors, profiles, log)
                self._open_lanes.append(lane)
                self._free_lanes.put(lane)
        except BaseException as error:
            # The frames of what failed hold the engine, which must go before the runtime.
            traceback.clear_frames(error.__traceback__)
            self.close()
            raise

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self.lane() as lane:
            return lane.run(feeds)

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        lane = self._free_lanes.get()
        try:
            if lane is None:
                raise closed(self._name)
            lane.settle()
            yield lane
        finally:
            self._free_lanes.put(lane)

    def close(self) -> None:
        with self._closing:
            # Taking a lane waits for its call. One None stays behind for callers that come later.
            for _ in range(len(self._open_lanes)):
                lane = self._free_lanes.get()
                if lane is not None:
                    lane.close()
            self._open_lanes.clear()
            self._free_lanes.put(None)
            with self._device.current():
                if self._maker is not None:
                    self._kernels.write(self._maker.compiled_kernels())
                    self._maker.close()
                    self._maker = None
                self._engine = None
                self._runtime = None
