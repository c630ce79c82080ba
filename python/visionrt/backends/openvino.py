"""Runs an ONNX graph with OpenVINO on the CPU: the other CPU twin."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.backends.feeds import check_feeds, closed
from visionrt.cpu_settings import usable_cores
from visionrt.errors import MissingDependencyError, ModelError
from visionrt.manifest import TensorInfo

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "u8": "uint8",
    "i8": "int8",
    "u16": "uint16",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "boolean": "bool",
}


class OpenVinoBackend:
    """A compiled OpenVINO model; see :class:`visionrt.backends.base.Backend`. Thread-safe.

    Args:
        model: the ONNX bytes, or a path (which external data needs).
        threads: that one run may use; default: OpenVINO's choice.
        streams: runs that may go on at once; more of them wait. Default: one, or, where
            ``threads`` is given, as many as this process has cores for.

    Raises:
        ModelError: OpenVINO cannot load the graph.
        MissingDependencyError: ``openvino`` is not installed.
    """

    name = "openvino"
    device = "cpu"
    max_batch: int | None = None

    def __init__(
        self,
        model: bytes | str | os.PathLike[str],
        *,
        threads: int | None = None,
        streams: int | None = None,
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingDependencyError(
                "the package openvino", got=str(error), fix="pip install openvino"
            ) from error
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            # Its own INT8 rewriting of ONNX Q/DQ graphs was seen to lose every box.
            "LP_TRANSFORMS_MODE": "NO",
        }
        cores = usable_cores()
        if streams is None:
            streams = 1 if threads is None else max(1, cores // threads)
        # The hint for latency would run one at a time, however many streams are asked for.
        settings["NUM_STREAMS"] = streams
        settings["INFERENCE_NUM_THREADS"] = streams * (threads or max(1, cores // streams))
        try:
            core = openvino.Core()
            source = model if isinstance(model, bytes) else os.fspath(model)
            self._compiled = core.compile_model(core.read_model(source), "CPU", settings)
        # OpenVINO raises RuntimeError for everything; a missing file is one too.
        except (RuntimeError, TypeError, ValueError) as error:
            where = "the given bytes" if isinstance(model, bytes) else os.fspath(model)
            raise ModelError(
                f"an ONNX graph that OpenVINO {openvino.__version__} can run in {where}",
                got=_last_line(error),
                fix="Use the back end onnxruntime, or check the model with trtconvert check.",
            ) from error
        self.inputs = tuple(_info(port) for port in self._compiled.inputs)
        self.outputs = tuple(_info(port) for port in self._compiled.outputs)
        # A request holds its own memory and serves one run at a time.
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; see :meth:`visionrt.backends.base.Backend.run`. Releases the GIL.

        Raises:
            InputDataError: a missing input, or a wrong dtype or shape.
            ModelError: a node fails.
            UsageError: closed.
        """
        check_feeds(self.inputs, feeds)
        with self._request() as request:
            try:
                request.infer(dict(feeds), share_inputs=True)
            except RuntimeError as error:
                raise _failed(error) from error
            # The next run of this request overwrites its outputs.
            arrays = [np.array(tensor.data) for tensor in request.output_tensors]
        return dict(zip((o.name for o in self.outputs), arrays, strict=True))

    def bind(self, name: str, tensor: NDArray[Any]) -> Callable[[], Mapping[str, NDArray[Any]]]:
        """See :meth:`visionrt.backends.base.BindingBackend.bind`."""
        from openvino import Tensor

        check_feeds(self.inputs, {name: tensor})
        with self._lock:
            if self._compiled is None:
                raise closed(self.name)
            request = self._compiled.create_infer_request()
        request.set_input_tensor(Tensor(tensor, shared_memory=True))
        names = [output.name for output in self.outputs]

        def run() -> Mapping[str, NDArray[Any]]:
            if self._compiled is None:
                raise closed(self.name)
            try:
                request.infer(share_outputs=True)
            except RuntimeError as error:
                raise _failed(error) from error
            arrays = [output.data for output in request.output_tensors]
            return dict(zip(names, arrays, strict=True))

        return run

    def close(self) -> None:
        """Release the model. May be called twice; runs under way end as usual."""
        with self._lock:
            self._compiled = None
            self._idle.clear()

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        with self._lock:
            if self._compiled is None:
                raise closed(self.name)
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        try:
            yield request
        finally:
            with self._lock:
                if self._compiled is not None:
                    self._idle.append(request)


def _failed(error: Exception) -> ModelError:
    return ModelError(
        "the graph to run",
        got=_last_line(error),
        fix="Check that the model works with this input size.",
    )


def _info(port: Any) -> TensorInfo:
    # A name is missing only where the graph gave none.
    name = port.get_any_name() if port.get_names() else f"port_{port.get_index()}"
    shape = tuple(
        f"dim_{i}" if d.is_dynamic else d.get_length() for i, d in enumerate(port.partial_shape)
    )
    dtype = _DTYPES.get(port.element_type.get_type_name())
    if dtype is None:
        raise ModelError(
            f"a tensor of numbers for {name}",
            got=port.element_type.get_type_name(),
            fix="Remove that input or output.",
        )
    return TensorInfo(name, dtype, shape)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
