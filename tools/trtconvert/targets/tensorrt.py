"""The ``tensorrt`` target: a plan by full TensorRT (10.12 or later, 11), for this machine's GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trtconvert.targets.base import BuiltPlan, ProgressCallback, ShapeRange
from trtconvert.targets.build_process import BuildRequest, build_in_child
from trtconvert.targets.trt_builder import PlanOptions
from visionrt import device
from visionrt.atomic import write_bytes
from visionrt.backends.trt_library import TENSORRT, load_library
from visionrt.errors import InputDataError, MissingDependencyError
from visionrt.manifest import PlanInfo


@dataclass(frozen=True)
class TensorRTTarget:
    """A plan that runs on GPUs of this machine's kind, with the TensorRT version that built it.

    Attributes:
        workspace_bytes: most scratch memory a layer may use on the GPU; None means all of it.
        timing_cache: a file that keeps kernel timings from one build to the next; made when it
            is missing, replaced after each build.
    """

    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    name: str = "tensorrt"
    backend: str = TENSORRT

    def check(self) -> None:
        """Return when TensorRT and a GPU are here.

        Raises:
            MissingDependencyError: TensorRT, the driver, PyCUDA or the GPU is missing.
        """
        load_library(TENSORRT)
        problem = device.gpu_problem(0)
        if problem:
            raise MissingDependencyError(
                "an NVIDIA GPU, which full TensorRT builds on",
                got=problem,
                fix="Build on the machine with the GPU, or build --target rtx here.",
            )

    def build(
        self, model: bytes, shapes: Mapping[str, ShapeRange], progress: ProgressCallback | None
    ) -> BuiltPlan:
        """Build the plan in a child process. See ``Target.build``.

        Raises:
            InputDataError: the timing cache cannot be read or written.
        """
        self.check()
        gpu = device.gpu_info(0)
        start = time.perf_counter()
        options = PlanOptions(
            workspace_bytes=self.workspace_bytes, timing_cache=self._read_timing_cache()
        )
        result = build_in_child(BuildRequest(TENSORRT, model, shapes, options), progress)
        if self.timing_cache is not None and result.timing_cache is not None:
            write_bytes(self.timing_cache, result.timing_cache)
        info = PlanInfo(
            member=f"plans/tensorrt-sm{gpu.compute_capability}.plan",
            backend=self.backend,
            target=self.name,
            library_version=result.library_version,
            compute_capabilities=(gpu.compute_capability,),
            build_seconds=round(time.perf_counter() - start, 3),
        )
        return BuiltPlan(result.plan, info)

    def _read_timing_cache(self) -> bytes | None:
        if self.timing_cache is None:
            return None
        try:
            return self.timing_cache.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise InputDataError(
                f"a readable timing cache at {self.timing_cache}",
                got=error.strerror or str(error),
                fix="Correct the path, or leave the timing cache out.",
            ) from error
