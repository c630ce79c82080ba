"""Takes the faster CPU twin: int8 where this CPU gains by it, float32 where it does not."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from onnx import ModelProto

from trtconvert.typed import TypedGraph
from visionrt.backends.onnxruntime import OnnxRuntimeBackend

_ROUNDS = 7


def with_faster_twin(typed: TypedGraph, clean: ModelProto, warnings: list[str]) -> TypedGraph:
    """``typed``, with the float32 twin where the int8 one is slower here; blocks for some runs.

    Args:
        typed: its twin is replaced only where it is int8.
        clean: the float32 graph.
        warnings: what was measured is appended here, where the twin is replaced.
    """
    if typed.twin_precision == "fp32":
        return typed
    int8_ms, fp32_ms = _latencies_ms(typed.twin, clean)
    if int8_ms <= fp32_ms:
        return typed
    warnings.append(
        f"the CPU twin is float32: int8 took {int8_ms:.1f} ms on this CPU, float32 {fp32_ms:.1f} ms"
    )
    return dataclasses.replace(typed, twin=clean, twin_precision="fp32")


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
