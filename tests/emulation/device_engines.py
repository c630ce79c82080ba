"""TensorRT-RTX for processes on the fake driver: an engine runs its ONNX graph in ONNX Runtime.

``execute_async_v3`` queues a host function on the stream, so the graph runs when the stream gets
there, on what the device memory holds then; a capture records it as a node, like a kernel. The
enums, logger and allocator are the real bindings'; what needs a GPU is the double of
tests/python/tensorrt_double.py, of which a test checks that the real classes have every name.
"""

from __future__ import annotations

import contextlib
import ctypes
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import fake_cuda
import numpy as np
import onnxruntime as ort

_HostFunction = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
errors: list[BaseException] = []
enqueued = 0
_callbacks: list[Any] = []  # a graph may call them, rightly or not
SCRATCH_BYTES = 5000


def _double() -> types.ModuleType:
    """tensorrt_double, whose rule that a context is current asks the fake driver."""
    import tensorrt_double

    tensorrt_double.cuda = types.SimpleNamespace(is_current=_is_current)
    return tensorrt_double


def _is_current() -> bool:
    context = ctypes.c_void_p()
    fake_cuda.library().cuCtxGetCurrent(ctypes.byref(context))
    return bool(context)


class Session:
    """An ONNX graph as the ``compute`` of an engine; shapes are found once per input shape."""

    def __init__(
        self, model: bytes, change: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._shapes: dict[Any, dict[str, np.ndarray]] = {}

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, dict(feeds)), strict=True))

    def like(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of the right shapes."""
        key = tuple(array.shape for array in feeds.values())
        if key not in self._shapes:
            zeros = {name: np.zeros_like(array) for name, array in feeds.items()}
            self._shapes[key] = self(zeros)
        return self._shapes[key]


def engine_spec(session: Session, *, batches: tuple[int, int] = (1, 8)) -> Any:
    """What an engine of this graph looks like; a symbolic batch takes ``batches``."""
    kinds = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8", "tensor(float16)": "HALF"}
    kinds["tensor(int64)"] = "INT64"
    tensors, profile = [], {}
    inputs = session.session.get_inputs()
    for role, values in (("INPUT", inputs), ("OUTPUT", session.session.get_outputs())):
        for value in values:
            shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
            tensors.append((value.name, role, kinds[value.type], shape, "DEVICE"))
            if role == "INPUT" and -1 in shape:
                least, most = ((n, *shape[1:]) for n in batches)
                profile[value.name] = (least, least, most)
    return _double().EngineSpec(
        tensors=tensors, compute=session, profiles=[profile], scratch_bytes=SCRATCH_BYTES
    )


def library_running(
    spec: Any, *, capturable: bool = True, fails_in_capture: bool = False
) -> types.ModuleType:
    """``tensorrt_rtx`` with a runtime that gives an engine of ``spec`` for every plan."""
    double = _double()
    stub = fake_cuda.library()

    class IExecutionContext(double.IExecutionContext):  # type: ignore[misc, name-defined]
        def __init__(self, engine: Any) -> None:
            super().__init__(engine)
            self._changes = 0

        def is_stream_capturable(self, stream: int) -> bool:
            return capturable

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            self._changes += 1
            return bool(super().set_optimization_profile_async(profile_index, stream_handle))

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._changes += tuple(shape) != self._shapes.get(name)
            return bool(super().set_input_shape(name, shape))

        def get_tensor_shape(self, name: str) -> Any:
            if name in self._shapes or name in self._engine.spec.data_dependent:
                return super().get_tensor_shape(name)
            feeds = {n: np.empty(s, self._dtype(n)) for n, s in self._shapes.items()}
            return double.real.Dims(self._engine.spec.compute.like(feeds)[name].shape)

        def execute_async_v3(self, stream_handle: int) -> bool:
            global enqueued  # noqa: PLW0603
            assert stream_handle
            assert double.cuda.is_current()
            assert self._scratch is not None
            status = ctypes.c_int()
            stub.cuStreamIsCapturing(ctypes.c_void_p(stream_handle), ctypes.byref(status))
            if fails_in_capture and status.value:
                stub.cuStreamSynchronize(ctypes.c_void_p(stream_handle))  # spoils the capture
                return False
            callback = _HostFunction(self._run_later(dict(self._shapes), dict(self._addresses)))
            _callbacks.append(callback)
            enqueued += 1
            return stub.cuLaunchHostFunc(ctypes.c_void_p(stream_handle), callback, None) == 0

        def _dtype(self, name: str) -> Any:
            return np.dtype(double.real.nptype(self._engine.get_tensor_dtype(name)))

        def _run_later(
            self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]
        ) -> Callable[[Any], None]:
            made_at = self._changes
            scratch, size = self._scratch
            context = weakref.ref(self)  # which a graph does not keep alive
            compute = self._engine.spec.compute
            kinds = {name: self._dtype(name) for name in shapes}

            def run(_: Any) -> None:
                try:
                    # TensorRT's rule for graphs: what they were recorded from stays as it was.
                    made_from = context()
                    assert made_from is not None, "a graph outlived its context"
                    assert made_at == made_from._changes, "a graph outlived a change of its context"
                    assert (scratch, size) == made_from._scratch
                    ctypes.memset(scratch, 7, size)
                    feeds = {}
                    for name, shape in shapes.items():
                        feeds[name] = np.empty(shape, kinds[name])
                        ctypes.memmove(feeds[name].ctypes.data, addresses[name], feeds[name].nbytes)
                    for name, array in compute(feeds).items():
                        made = np.ascontiguousarray(array)
                        ctypes.memmove(addresses[name], made.ctypes.data, made.nbytes)
                        fake_cuda.mark_written(addresses[name], made.nbytes)
                except BaseException as error:  # noqa: BLE001 - ctypes would only print it
                    errors.append(error)

            return run

    class ICudaEngine(double.ICudaEngine):  # type: ignore[misc, name-defined]
        def create_execution_context(self, how: Any) -> Any:
            if super().create_execution_context(how) is None:
                return None
            return IExecutionContext(self)

    class Runtime(double.Runtime):  # type: ignore[misc, name-defined]
        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            assert double.cuda.is_current()
            return ICudaEngine(self.spec, self.logger)

    library = double.library_running(spec)
    library.Runtime = type("Runtime", (Runtime,), {"spec": spec})  # type: ignore[attr-defined]
    return library


@contextlib.contextmanager
def plans_run(session: Session, *, version: str = "", **options: Any) -> Iterator[Any]:
    """In the block, every plan loads as an engine of this graph.

    ``version``: by full TensorRT with the names that this version has; else by TensorRT-RTX.
    """
    from tensorrt_versions import full_tensorrt

    from visionrt.backends import tensorrt as backend_module

    spec = engine_spec(session)
    library = library_running(spec, **options)
    if version:
        library = full_tensorrt(library, version)
    with mock.patch.object(backend_module, "load_library", return_value=library):
        yield spec
    assert not errors, errors
