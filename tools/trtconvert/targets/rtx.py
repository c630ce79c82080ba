"""The ``rtx`` targets: TensorRT-RTX plans, built on any machine for the GPUs that are named."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from trtconvert.targets.base import BuiltPlan, ProgressCallback, ShapeRange
from trtconvert.targets.build_process import BuildRequest, build_in_child
from trtconvert.targets.trt_builder import PlanOptions
from visionrt.backends.trt_library import TENSORRT_RTX, load_library, member
from visionrt.errors import MissingDependencyError, UsageError
from visionrt.manifest import PlanInfo

SUPPORTED_SMS = ("75", "80", "86", "89", "120", "121")
# Ampere to Blackwell desktop GPUs. Turing (75) is left out: its float32 MatMul does not build.
DEFAULT_SMS = ("80", "86", "89", "120")

_ELSEWHERE = {
    "87": "Jetson Orin",
    "90": "Hopper",
    "100": "data-centre Blackwell",
    "101": "Jetson Thor",
    "103": "data-centre Blackwell",
    "110": "Jetson Thor",
}


@dataclass(frozen=True)
class RtxTarget:
    """One TensorRT-RTX plan that runs on each of the listed GPUs.

    Needs no GPU to build. The plan is compiled for the GPU when it is first loaded there.

    Attributes:
        sms: SM numbers, of :data:`SUPPORTED_SMS`. A plan for several is larger than for one, and
            one that cannot be built fails them all.
    """

    sms: tuple[str, ...]
    backend: str = TENSORRT_RTX

    def __post_init__(self) -> None:
        if not self.sms or len(set(self.sms)) != len(self.sms):
            raise UsageError(
                "a list of different GPUs",
                got=",".join(self.sms) or "none",
                fix="Name each SM once, like rtx:sm86,sm89.",
            )
        for sm in self.sms:
            _check_sm(sm)

    @property
    def name(self) -> str:
        """``rtx:sm86,sm89``."""
        return "rtx:" + ",".join(f"sm{sm}" for sm in self.sms)

    @property
    def member(self) -> str:
        """The plan's name in an engine file, ``plans/rtx-sm86-sm89.plan``."""
        return "plans/rtx-" + "-".join(f"sm{sm}" for sm in self.sms) + ".plan"

    def check(self) -> None:
        """Return when TensorRT-RTX is here and knows the GPUs.

        Raises:
            MissingDependencyError: it is not installed, broken, or of a version without them.
        """
        library = load_library(TENSORRT_RTX)
        for sm in self.sms:
            if member(library.ComputeCapability, f"SM{sm}") is None:
                raise MissingDependencyError(
                    f"a TensorRT-RTX that builds for SM{sm}",
                    got=str(library.__version__),
                    fix='Run: pip install --upgrade "trtconvert[rtx]"',
                )

    def build(
        self, model: bytes, shapes: Mapping[str, ShapeRange], progress: ProgressCallback | None
    ) -> BuiltPlan:
        """Build the plan in a child process. See ``Target.build``."""
        self.check()
        start = time.perf_counter()
        options = PlanOptions(compute_capabilities=self.sms)
        result = build_in_child(BuildRequest(TENSORRT_RTX, model, shapes, options), progress)
        info = PlanInfo(
            member=self.member,
            backend=self.backend,
            target=self.name,
            library_version=result.library_version,
            compute_capabilities=self.sms,
            build_seconds=round(time.perf_counter() - start, 3),
        )
        return BuiltPlan(result.plan, info)


def parse_sms(text: str) -> tuple[str, ...]:
    """SM numbers of ``sm86,sm89``, in the order given; repeats stay for the caller to refuse.

    Raises:
        UsageError: an empty item, a wrong spelling or a GPU that TensorRT-RTX does not build for.
    """
    out = []
    for item in text.split(","):
        sm = item.strip().lower().removeprefix("sm").removeprefix("_").replace(".", "")
        _check_sm(sm, spelled=item.strip())
        out.append(sm)
    return tuple(out)


def _check_sm(sm: str, spelled: str = "") -> None:
    if sm in SUPPORTED_SMS:
        return
    where = _ELSEWHERE.get(sm)
    raise UsageError(
        f"a GPU that TensorRT-RTX builds for ({', '.join('sm' + s for s in SUPPORTED_SMS)})",
        got=f"{spelled or 'sm' + sm}{f' ({where})' if where else ''}",
        fix="Use --target tensorrt on the machine with that GPU: full TensorRT supports it."
        if where
        else "Write the SM number of the GPU, like rtx:sm86.",
    )
