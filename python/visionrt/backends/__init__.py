"""Engine back ends; each imports its library lazily, in its own file only."""

from __future__ import annotations

import os

from visionrt.backends.base import Backend
from visionrt.errors import UsageError

TWINS = ("onnxruntime", "openvino")


def open_twin(
    model: bytes | str | os.PathLike[str],
    *,
    backend: str | None = None,
    threads: int | None = None,
    streams: int | None = None,
) -> Backend:
    """An ONNX graph on the CPU.

    Args:
        model: the ONNX bytes, or a path.
        backend: ``onnxruntime`` (the default) or ``openvino``.
        threads: that one run may use; default: the library's choice.
        streams: runs that may go on at once without waiting for each other; default: one where
            ``threads`` is left out, else as many as there are cores for. ONNX Runtime needs not
            be told.

    Raises:
        UsageError: another back end, or ``threads`` or ``streams`` below 1.
        MissingDependencyError: the back end's library is not installed.
        ModelError: the back end refuses the graph.
    """
    for name, count in (("threads", threads), ("streams", streams)):
        if count is not None and count < 1:
            raise UsageError(f"{name}: an integer above 0", got=str(count), fix="Give 1 or more.")
    if backend in (None, "onnxruntime"):
        from visionrt.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(model, threads=threads)
    if backend == "openvino":
        from visionrt.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(model, threads=threads, streams=streams)
    raise UsageError(
        f"a CPU back end: {' | '.join(TWINS)}", got=repr(backend), fix="Name one of them."
    )
