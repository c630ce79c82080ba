"""What the pipeline asks of an engine back end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from visionrt.device import Device, Stream
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


@runtime_checkable
class BindingBackend(Protocol):
    """A back end that can be tied to memory once, so that a run allocates and copies nothing."""

    def bind(self, name: str, tensor: NDArray[Any]) -> Callable[[], Mapping[str, NDArray[Any]]]:
        """A run that always reads ``tensor``, which must stay where it is.

        Args:
            name: of the only input.
            tensor: C-contiguous, of the input's dtype and shape.

        Returns:
            What to call for a run: blocks, gives the outputs by name, and raises as
            :meth:`Backend.run`. The next call overwrites the outputs. One caller at a time;
            several bound runs may go on at once.
        """
        ...


@dataclass(frozen=True)
class DeviceTensor:
    """A contiguous tensor in device memory."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class DeviceLane(Protocol):
    """An execution context with its stream and tensors in device memory; one caller at a time.

    Except for ``device`` and ``stream``, everything needs the device's context to be current.
    See ``trt_lane.Lane``.
    """

    device: Device
    stream: Stream
    generation: int

    def bind(self, shape: tuple[int, ...]) -> bool:
        """Prepare for an image tensor of a shape; False where an output's shape stays open."""
        ...

    def input_address(self) -> int:
        """Where the image tensor lies."""
        ...

    def outputs(self) -> dict[str, DeviceTensor]:
        """Where the outputs lie."""
        ...

    def enqueue(self) -> None:
        """Queue the engine on the stream."""
        ...

    def host_outputs(self) -> dict[str, NDArray[Any]]:
        """Page-locked arrays for the outputs."""
        ...

    def queue_download(self) -> None:
        """Queue copies of the outputs to :meth:`host_outputs`."""
        ...

    def leave_running(self) -> None:
        """Give the lane back while its stream works; who takes it next waits for that."""
        ...

    def capture_problem(self) -> str:
        """Why the engine cannot be recorded in a CUDA graph; empty when it may be."""
        ...


@runtime_checkable
class DeviceBackend(Protocol):
    """A back end on a GPU, which lends its lanes to those who work around the engine there."""

    device: str

    def device_problem(self) -> str:
        """Why frames cannot stay on the device around this engine; empty when they can."""
        ...

    def lane(self) -> AbstractContextManager[DeviceLane]:
        """A lane for the duration of a ``with`` block; blocks until one is free."""
        ...
