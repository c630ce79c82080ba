"""One lane of a TensorRT engine: execution contexts with their stream and buffers."""

from __future__ import annotations

import contextlib
import functools
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.backends.base import DeviceTensor
from visionrt.backends.trt_context import ContextMaker
from visionrt.backends.trt_io import IoTensor, Profile, Shape, pick_profile
from visionrt.backends.trt_library import MessageLog
from visionrt.device import Device, DeviceBuffer
from visionrt.errors import MissingDependencyError

# Contexts kept per lane for shapes that stay on the device; each holds some host and GPU memory.
CONTEXTS = 4


@dataclass
class _Context:
    """An execution context, and what it was last told."""

    raw: Any
    profile: int = 0
    addresses: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Shape] = field(default_factory=dict)
    capture_problem: str = ""


class Lane:
    """Runs an engine for one caller at a time.

    Args:
        trt: the library.
        maker: of the engine's contexts; outlives the lane.
        device: whose context is used; the lane makes it current where it has to.
        tensors: the engine's inputs and outputs.
        profiles: the engine's profiles.
        log: of the library's messages.

    Attributes:
        device, stream: where it runs.
        generation: changes whenever a context is released or a tensor moves. CUDA graphs recorded
            before are not valid then.

    Raises:
        MissingDependencyError: not enough GPU memory.
    """

    def __init__(
        self,
        trt: Any,
        maker: ContextMaker,
        device: Device,
        tensors: Sequence[IoTensor],
        profiles: Sequence[Profile],
        log: MessageLog,
    ) -> None:
        self.device = device
        self._maker = maker
        self._log = log
        self._inputs = [t for t in tensors if t.is_input]
        self._outputs = [t for t in tensors if not t.is_input]
        self._profiles = profiles
        self._bound: OrderedDict[Shape, _Context] = OrderedDict()
        self._current: _Context | None = None  # of the last bind
        self._plain: _Context | None = None  # of run, whose shapes come and go
        self._spare: _Context | None = None
        self._seen: dict[str, int] = {}
        self._is_running = False
        self.generation = 0
        self.stream = device.stream()
        self._scratch = device.buffer()
        self._memory = {t.name: device.buffer() for t in tensors}
        self._pinned = {t.name: device.pinned() for t in tensors}
        allocator = _output_allocator(trt)
        self._allocators = {t.name: allocator(self._memory[t.name]) for t in self._outputs}
        try:
            self._scratch.reserve(maker.scratch_bytes)
            # Now, so that a lack of memory shows when the model is loaded.
            with device.current():
                self._spare = self._context()
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; blocks until the outputs, new host arrays, hold the results.

        Raises:
            InputDataError: no profile takes the shapes.
            MissingDependencyError: the GPU or its memory failed.
        """
        mark = self._log.mark()
        with self.device.current():
            if self._plain is None:
                self._plain = self._context()
            context = self._plain
            try:
                self._select_profile(context, {n: a.shape for n, a in feeds.items()}, mark)
                for tensor in self._inputs:
                    self._upload(context, tensor, feeds[tensor.name], mark)
                self._bind_outputs(context, mark)
                if not context.raw.execute_async_v3(self.stream.handle):
                    self._raise_allocator_error()
                    raise self._failed("run the engine", mark)
                outputs = {
                    t.name: self._download(t, self._allocators[t.name].shape) for t in self._outputs
                }
            finally:
                # After an error too: queued copies still use the pinned memory.
                self.stream.synchronize()
                self._notice_moves()
        # The pinned memory is written again by the next run, so the caller gets copies.
        return {name: array.copy() for name, array in outputs.items()}

    def bind(self, shape: Shape) -> bool:
        """Prepare the engine for an image tensor of a shape: context, memory, addresses.

        Only for engines of which :func:`device_problem` finds none. Blocks where memory grows, and
        for long where the shape is new. The device's context must be current.

        Returns:
            Whether the shapes of all outputs are known before the engine runs.

        Raises:
            InputDataError: no profile takes the shape.
            MissingDependencyError: the GPU or its memory failed.
        """
        context = self._bound.pop(shape, None)
        try:
            if context is None:
                if len(self._bound) >= CONTEXTS:
                    self._current = None
                    self._bound.popitem(last=False)
                    self.generation += 1
                context = self._context()
            self._current = context
            self._bind(context, shape)
        except BaseException:
            # The context is dropped, and with it whatever was recorded from it.
            self._current = None
            self.generation += 1
            raise
        self._bound[shape] = context
        return all(-1 not in sizes for sizes in context.outputs.values())

    def input_address(self) -> int:
        """Where the image tensor of the last :meth:`bind` lies on the device."""
        return self._memory[self._inputs[0].name].address

    def outputs(self) -> dict[str, DeviceTensor]:
        """Where the outputs of the last :meth:`bind` lie on the device."""
        return {
            t.name: DeviceTensor(
                self._memory[t.name].address, self._bound_now().outputs[t.name], t.dtype
            )
            for t in self._outputs
        }

    def enqueue(self) -> None:
        """Queue the engine on the stream; the context must be current. Does not block.

        Raises:
            MissingDependencyError: the GPU failed.
        """
        mark = self._log.mark()
        if not self._bound_now().raw.execute_async_v3(self.stream.handle):
            raise self._failed("run the engine", mark)

    def host_outputs(self) -> dict[str, NDArray[Any]]:
        """Page-locked arrays for the outputs of the last :meth:`bind`; every frame writes them."""
        return {
            t.name: self._pinned[t.name].array(self._bound_now().outputs[t.name], t.dtype)
            for t in self._outputs
        }

    def queue_download(self) -> None:
        """Queue copies of every output to :meth:`host_outputs`. Does not block."""
        for tensor in self._outputs:
            self._download(tensor, self._bound_now().outputs[tensor.name])

    def capture_problem(self) -> str:
        """Why the engine cannot be recorded in a CUDA graph, in words; empty when it may be."""
        return self._bound_now().capture_problem

    def leave_running(self) -> None:
        """Say that the lane is given back while its stream works."""
        self._is_running = True

    def settle(self) -> None:
        """Wait for what the last caller left running, if anything.

        Raises:
            MissingDependencyError: it failed.
        """
        if self._is_running:
            self._is_running = False
            with self.device.current():
                self.stream.synchronize()

    def close(self) -> None:
        """Wait, and release the contexts, then their memory. May be called twice."""
        # A failure is the business of whoever reads that frame's result.
        with contextlib.suppress(MissingDependencyError):
            self.settle()
        with self.device.current():
            self._current = self._plain = self._spare = None
            self._bound.clear()
        memory = (*self._memory.values(), *self._pinned.values(), self._scratch)
        for owned in (*memory, self.stream):
            owned.close()

    def _bind(self, context: _Context, shape: Shape) -> None:
        tensor = self._inputs[0]
        self._memory[tensor.name].reserve(_bytes_of(shape, tensor))
        for output in self._outputs:
            # Another shape's tensor may have moved it since; unknown before the first bind.
            known = context.outputs.get(output.name, (-1,))
            if -1 not in known:
                self._memory[output.name].reserve(_bytes_of(known, output))
        if context.addresses != self._addresses():
            mark = self._log.mark()
            self._select_profile(context, {tensor.name: shape}, mark)
            address = self._memory[tensor.name].address
            self._set_input(context, tensor, shape, address, mark)
            self._bind_outputs(context, mark)
            context.addresses = self._addresses()
            context.capture_problem = self._capture_problem(context.raw)
        self._notice_moves()

    def _context(self) -> _Context:
        spare, self._spare = self._spare, None
        return spare or _Context(self._maker.make(self._scratch.address))

    def _bound_now(self) -> _Context:
        assert self._current is not None, "bind comes first"
        return self._current

    def _addresses(self) -> dict[str, int]:
        return {name: memory.address for name, memory in self._memory.items()}

    def _notice_moves(self) -> None:
        now = self._addresses()
        if any(old and now[name] != old for name, old in self._seen.items()):
            self.generation += 1
        self._seen = now

    def _capture_problem(self, raw: Any) -> str:
        # Only TensorRT-RTX has the question, and answers it for the bound shapes.
        ask = getattr(raw, "is_stream_capturable", None)
        if ask is None or ask(self.stream.handle):
            return ""
        return "the library says that these shapes cannot be captured"

    def _select_profile(self, context: _Context, shapes: Mapping[str, Shape], mark: int) -> None:
        profile = pick_profile(self._profiles, shapes, context.profile)
        if profile.index == context.profile:
            return
        handle = self.stream.handle
        if not context.raw.set_optimization_profile_async(profile.index, handle):
            raise self._failed(f"switch to optimization profile {profile.index}", mark)
        context.profile = profile.index

    def _upload(self, context: _Context, tensor: IoTensor, feed: NDArray[Any], mark: int) -> None:
        staged = self._pinned[tensor.name].array(feed.shape, tensor.dtype)
        np.copyto(staged, feed)
        if tensor.on_host:
            address = staged.ctypes.data
        else:
            address = self._memory[tensor.name].reserve(staged.nbytes)
            self.device.copy_to_device(address, staged, self.stream)
        self._set_input(context, tensor, feed.shape, address, mark)

    def _set_input(
        self, context: _Context, tensor: IoTensor, shape: Shape, address: int, mark: int
    ) -> None:
        if not (
            context.raw.set_input_shape(tensor.name, shape)
            and context.raw.set_tensor_address(tensor.name, address)
        ):
            raise self._failed(f"take input {tensor.name} of shape {shape}", mark)

    def _bind_outputs(self, context: _Context, mark: int) -> None:
        try:
            unknown = context.raw.infer_shapes()
        except RuntimeError as error:
            raise self._failed("infer the shapes", mark) from error
        if unknown:
            raise self._failed(f"find every shape (not those of {', '.join(unknown)})", mark)
        for tensor in self._outputs:
            name = tensor.name
            shape = tuple(context.raw.get_tensor_shape(name))
            context.outputs[name] = shape
            if -1 in shape:
                bound = context.raw.set_output_allocator(name, self._allocators[name])
            else:
                self._allocators[name].shape = shape
                if tensor.on_host:
                    address = self._pinned[name].array(shape, tensor.dtype).ctypes.data
                else:
                    address = self._memory[name].reserve(_bytes_of(shape, tensor))
                bound = context.raw.set_tensor_address(name, address)
            if not bound:
                raise self._failed(f"bind output {name} of shape {shape}", mark)

    def _download(self, tensor: IoTensor, shape: Shape) -> NDArray[Any]:
        array = self._pinned[tensor.name].array(shape, tensor.dtype)
        if not tensor.on_host:
            self.device.copy_to_host(array, self._memory[tensor.name].address, self.stream)
        return array

    def _raise_allocator_error(self) -> None:
        # TensorRT swallows what an output allocator raises, so the allocator keeps it.
        for allocator in self._allocators.values():
            error, allocator.error = allocator.error, None
            if error is not None:
                raise error

    def _failed(self, doing: str, mark: int) -> MissingDependencyError:
        return MissingDependencyError(
            f"a GPU that can {doing}",
            got=self._log.quote_since(mark),
            fix="Free GPU memory or use a smaller input; where it persists, run visionrt doctor.",
        )


def device_problem(tensors: Sequence[IoTensor]) -> str:
    """Why frames cannot stay on the device around this engine; empty when they can."""
    inputs = [t for t in tensors if t.is_input]
    if len(inputs) != 1 or inputs[0].on_host:
        return "the engine does not take one image tensor in device memory"
    for tensor in tensors:
        if not tensor.is_input and tensor.on_host:
            return f"output {tensor.name} is made in host memory"
    return ""


def _bytes_of(shape: Shape, tensor: IoTensor) -> int:
    return tensor.dtype.itemsize * math.prod(shape)


@functools.cache
def _output_allocator(trt: Any) -> Any:
    """The class of output allocators over a :class:`DeviceBuffer`, for one library."""

    class _OutputAllocator(trt.IOutputAllocator):  # type: ignore[misc]
        """Gives memory to an output whose size is known only while the engine runs."""

        def __init__(self, memory: DeviceBuffer) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory = memory
            self.shape: Shape = ()
            self.error: Exception | None = None

        def reallocate_output(
            self, tensor_name: str, memory: int, size: int, alignment: int
        ) -> int:
            # Never 0, not even for size 0, which TensorRT would take for a failure.
            try:
                return self.memory.reserve(size)
            except MissingDependencyError as error:
                self.error = error
                return 0

        def reallocate_output_async(
            self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            # Freeing waits for the GPU, so the old memory is not in use when it goes.
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shape = tuple(shape)

    return _OutputAllocator
