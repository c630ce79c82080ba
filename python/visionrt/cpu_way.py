"""How a file's CPU twin is run on this machine: by the user's word, as tuned, or by default."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from visionrt.backends import open_twin
from visionrt.backends.base import Backend
from visionrt.cpu_settings import CpuChoice, CpuSettings, cpu_signature, safe_settings


@dataclass(frozen=True)
class CpuWay:
    """Settings for calls and for streams, and a line for people that says why these."""

    call: CpuSettings
    stream: CpuSettings
    note: str

    def open(self, model: bytes | Path) -> Backend:
        """The engine for calls; raises as :func:`visionrt.backends.open_twin`."""
        return _open(model, self.call)

    def open_for_streams(self, model: bytes | Path) -> Backend:
        """The engine for streams; raises as :func:`visionrt.backends.open_twin`."""
        return _open(model, self.stream)


def cpu_way(backend: str | None, threads: int | None, tuned: CpuChoice | None) -> CpuWay:
    """The way for this machine.

    Args:
        backend, threads: what the user asked for; either given, nothing else is looked at.
        tuned: the choice that the file holds.
    """
    if backend is not None or threads is not None:
        asked = CpuSettings(backend or "onnxruntime", threads)
        return CpuWay(asked, asked, f"CPU settings: as asked for ({asked})")
    call, stream = safe_settings()
    here = cpu_signature()
    if tuned is None:
        return CpuWay(call, stream, "CPU settings: the default; nothing was timed (visionrt tune)")
    if tuned.cpu != here:
        return CpuWay(
            call,
            stream,
            f"CPU settings: the default; the file was tuned on {tuned.cpu}, and this is {here} "
            "(visionrt tune)",
        )
    for settings in (tuned.call, tuned.stream):
        if importlib.util.find_spec(settings.backend) is None:
            why = f"{settings.backend}, which was fastest here, is not installed"
            return CpuWay(call, stream, f"CPU settings: the default; {why}")
    note = f"CPU settings: as tuned on this CPU (call: {tuned.call}; stream: {tuned.stream})"
    if tuned.doubt:
        note += f"; timed badly: {tuned.doubt} (visionrt tune)"
    return CpuWay(tuned.call, tuned.stream, note)


def _open(model: bytes | Path, settings: CpuSettings) -> Backend:
    streams = None if settings.threads is None else settings.streams
    return open_twin(model, backend=settings.backend, threads=settings.threads, streams=streams)
