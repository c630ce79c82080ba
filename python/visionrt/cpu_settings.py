"""How the CPU twin is run: by which library, with how many threads and runs at once.

One call wants all cores for one run; a stream mostly gets more done with a run per core. So there
are two settings, and an engine file may hold those that were fastest on the CPU it was tuned on.
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CPU_INFO = Path("/proc/cpuinfo")
_NAMING_FIELDS = ("model name", "vendor_id", "cpu family", "model", "stepping")


@dataclass(frozen=True)
class CpuSettings:
    """One way to run a graph on the CPU.

    Attributes:
        backend: ``onnxruntime`` or ``openvino``.
        threads: that one run uses; None: the library's choice.
        streams: runs that go on at the same time.
    """

    backend: str = "onnxruntime"
    threads: int | None = None
    streams: int = 1

    def __str__(self) -> str:
        threads = "its own number of" if self.threads is None else str(self.threads)
        return f"{self.backend}, {threads} threads × {self.streams} at once"


@dataclass(frozen=True)
class CpuChoice:
    """The settings that were fastest on one kind of CPU.

    Attributes:
        cpu: :func:`cpu_signature` of the machine on which they were timed.
        call: for one call at a time.
        stream: for :meth:`visionrt.model.Model.stream`.
        call_ms: the engine's time of one run, by ``call``.
        stream_per_second: its runs a second, by ``stream``.
        doubt: why another choice may have been better, for people; empty where nothing says so.
    """

    cpu: str
    call: CpuSettings
    stream: CpuSettings
    call_ms: float
    stream_per_second: float
    doubt: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CpuChoice:
        """Of :meth:`to_json`. Raises KeyError, TypeError or ValueError."""
        return cls(
            cpu=str(value["cpu"]),
            call=_settings(value["call"]),
            stream=_settings(value["stream"]),
            call_ms=float(value["call_ms"]),
            stream_per_second=float(value["stream_per_second"]),
            doubt=str(value.get("doubt", "")),
        )


def _settings(value: Mapping[str, Any]) -> CpuSettings:
    settings = CpuSettings(**{**value, "backend": str(value["backend"])})
    counts = (settings.streams, 1 if settings.threads is None else settings.threads)
    if not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"CPU settings {dict(value)}")
    return settings


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_signature() -> str:
    """What tells this machine's CPU from one on which other settings may be faster."""
    found: dict[str, str] = {}
    text = _CPU_INFO.read_text(errors="replace") if _CPU_INFO.exists() else ""
    for line in text.partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        found[key.strip()] = value.strip()
    named = [found[field] for field in _NAMING_FIELDS if field in found]
    name = " ".join(named) or platform.processor() or platform.machine()
    return f"{platform.machine()} {name}, {usable_cores()} cores"


def safe_settings() -> tuple[CpuSettings, CpuSettings]:
    """For a call and for a stream, on a CPU on which nothing was timed."""
    return CpuSettings(), CpuSettings(threads=1, streams=usable_cores())
