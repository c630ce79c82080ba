"""What the pipeline asks of an engine back end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from visionrt.manifest import TensorInfo


class Backend(Protocol):
    """A loaded engine that turns input tensors into output tensors.

    Attributes:
        name: ``onnxruntime``, ``openvino``, ``tensorrt`` or ``tensorrt_rtx``.
        device: ``cpu`` or ``cuda:N``.
        inputs, outputs: in the graph's order.
        max_batch: most images per run where the batch is a symbolic size; None: no limit.
    """

    name: str
    device: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    max_batch: int | None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; blocks until the outputs are in host memory. Safe from several threads.

        Raises:
            InputDataError: a missing input, or a wrong dtype or shape.
        """
        ...

    def close(self) -> None:
        """Release the engine. May be called twice."""
        ...
