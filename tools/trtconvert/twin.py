"""Takes the CPU twin: int8 where this CPU computes it exactly and gains by it, else float32."""

from __future__ import annotations

import dataclasses
import platform
import time
from pathlib import Path

import numpy as np
from onnx import ModelProto

from trtconvert.typed import TypedGraph
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

_ROUNDS = 7
_CPU_INFO = Path("/proc/cpuinfo")
_EXACT_ON_X86 = {"avx512_vnni", "avx_vnni"}  # as the kernel spells them


def with_faster_twin(typed: TypedGraph, clean: ModelProto, warnings: list[str]) -> TypedGraph:
    """``typed``, with the float32 twin where the int8 one is slower or wrong here; blocks.

    Args:
        typed: its twin is replaced only where it is int8.
        clean: the float32 graph.
        warnings: the reason is appended here, where the twin is replaced.
    """
    if typed.twin_precision == "fp32":
        return typed
    if adds_in_16_bits(_cpu_info(), platform.machine()):
        warnings.append(
            "the CPU twin is float32: without VNNI this CPU adds int8 products in 16 bits, and the "
            "sums of two overflow"
        )
        return dataclasses.replace(typed, twin=clean, twin_precision="fp32")
    int8_ms, fp32_ms = _latencies_ms(typed.twin, clean)
    if int8_ms <= fp32_ms:
        return typed
    warnings.append(
        f"the CPU twin is float32: int8 took {int8_ms:.1f} ms on this CPU, float32 {fp32_ms:.1f} ms"
    )
    return dataclasses.replace(typed, twin=clean, twin_precision="fp32")


def adds_in_16_bits(cpu_info: str, machine: str) -> bool:
    """Whether ONNX Runtime's uint8 by int8 kernels saturate on a CPU: x86 without VNNI.

    There they use VPMADDUBSW, which adds two products of up to 255 · 127 in 16 bits.

    Args:
        cpu_info: text of ``/proc/cpuinfo``; empty where there is none.
        machine: as :func:`platform.machine` gives it.
    """
    return machine in ("x86_64", "AMD64") and not _EXACT_ON_X86 & set(cpu_info.split())


def _cpu_info() -> str:
    return _CPU_INFO.read_text(errors="replace") if _CPU_INFO.exists() else ""


def _latencies_ms(*graphs: ModelProto) -> list[float]:
    """Best time of each graph; they take turns, so that what else the machine does hits all."""
    backends = [OnnxRuntimeBackend(graph.SerializeToString()) for graph in graphs]
    info = backends[0].inputs[0]
    shape = [size if isinstance(size, int) else 1 for size in info.shape]
    feed = {info.name: np.zeros(shape, info.dtype)}
    best = [float("inf")] * len(backends)
    for round_ in range(_ROUNDS + 1):
        for index, backend in enumerate(backends):
            start = time.perf_counter()
            backend.run(feed)
            if round_ > 0:  # the first run allocates
                best[index] = min(best[index], (time.perf_counter() - start) * 1e3)
    for backend in backends:
        backend.close()
    return best
