"""Runs an ONNX graph with ONNX Runtime on the CPU: the default CPU twin."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.backends.feeds import check_feeds, closed
from visionrt.cpu_settings import usable_cores
from visionrt.errors import MissingDependencyError, ModelError
from visionrt.manifest import TensorInfo

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(uint16)": "uint16",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntimeBackend:
    """An ONNX Runtime session; see :class:`visionrt.backends.base.Backend`. Thread-safe.

    Args:
        model: the ONNX bytes, or a path (which external data needs).
        threads: that one run may use; default: one per physical core, or per core that this
            process may run on where that is fewer.
        optimize: whether the graph may be rewritten. Without, the graph runs as it is written, as
            a measurement of its quantization needs.
        as_written: compute each Q/DQ pair as it stands, where ONNX Runtime would make integer
            kernels of them that round in places of their own. For a measurement of quantization
            that is several times faster than without ``optimize``.
        in_order: run the nodes in the order of the graph, where ONNX Runtime's own order may hold
            every tensor that a later output reads until the end; without its plan of one block for
            all tensors, which is larger than what lives at a time, and without its arena, which
            grows from run to run. For graphs whose many outputs stand beside what they are
            computed from.
        weights_folder: where the files lie that a graph given as bytes refers to.

    Raises:
        ModelError: ONNX Runtime cannot load the graph.
        MissingDependencyError: ``onnxruntime`` is not installed.
    """

    name = "onnxruntime"
    device = "cpu"
    max_batch: int | None = None

    def __init__(
        self,
        model: bytes | str | os.PathLike[str],
        *,
        threads: int | None = None,
        optimize: bool = True,
        as_written: bool = False,
        in_order: bool = False,
        weights_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError(
                "the package onnxruntime", got=str(error), fix="pip install onnxruntime"
            ) from error
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads or _threads_to_use()
        settings.log_severity_level = 4  # what goes wrong is raised, and need not be printed too
        if not optimize:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if as_written:
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        if weights_folder is not None:
            settings.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", os.fspath(weights_folder)
            )
        if in_order:
            settings.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
            settings.enable_mem_pattern = False
            settings.enable_cpu_mem_arena = False
        try:
            self._session = onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else os.fspath(model),
                settings,
                providers=["CPUExecutionProvider"],
            )
        # The binding's exceptions have no common base but Exception.
        except Exception as error:
            where = "the given bytes" if isinstance(model, bytes) else os.fspath(model)
            raise ModelError(
                f"an ONNX graph that ONNX Runtime {onnxruntime.__version__} can run in {where}",
                got=_first_line(error),
                fix="Check the model with trtconvert check.",
            ) from error
        self.inputs = tuple(_info(i) for i in self._session.get_inputs())
        self.outputs = tuple(_info(o) for o in self._session.get_outputs())

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; see :meth:`visionrt.backends.base.Backend.run`. Releases the GIL.

        Raises:
            InputDataError: a missing input, or a wrong dtype or shape.
            ModelError: a node fails.
            UsageError: closed.
        """
        # A local reference keeps the session alive if another thread closes meanwhile.
        session = self._session
        if session is None:
            raise closed(self.name)
        check_feeds(self.inputs, feeds)
        names = [o.name for o in self.outputs]
        try:
            arrays = session.run(names, dict(feeds))
        except Exception as error:
            raise _failed(error) from error
        return dict(zip(names, arrays, strict=True))

    def bind(self, name: str, tensor: NDArray[Any]) -> Callable[[], Mapping[str, NDArray[Any]]]:
        """See :meth:`visionrt.backends.base.BindingBackend.bind`."""
        if self._session is None:
            raise closed(self.name)
        check_feeds(self.inputs, {name: tensor})
        return _BoundRun(self, name, tensor)

    def close(self) -> None:
        """Release the session. May be called twice; runs under way end as usual."""
        self._session = None


class _BoundRun:
    """A run with an I/O binding.

    ONNX Runtime allocates the outputs of the first run. Where they have the shapes that the graph
    declares, these can never change, and all later runs write to that memory.
    """

    def __init__(self, backend: OnnxRuntimeBackend, name: str, tensor: NDArray[Any]) -> None:
        from onnxruntime import OrtValue

        self._backend = backend
        self._binding = backend._session.io_binding()
        self._tensor = tensor  # the value below only points into it
        self._binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(tensor))
        self._let_allocate()
        sizes = backend.inputs[0].shape
        self._sizes: dict[int | str, int] = {
            s: n for s, n in zip(sizes, tensor.shape, strict=True) if isinstance(s, str)
        }
        self._outputs: dict[str, NDArray[Any]] | None = None

    def __call__(self) -> Mapping[str, NDArray[Any]]:
        session = self._backend._session
        if session is None:
            raise closed(self._backend.name)
        try:
            session.run_with_iobinding(self._binding)
        except Exception as error:
            raise _failed(error) from error
        return self._outputs or self._collected()

    def _collected(self) -> dict[str, NDArray[Any]]:
        from onnxruntime import OrtValue

        infos = self._backend.outputs
        arrays = [np.array(v.numpy()) for v in self._binding.get_outputs()]
        declared = [tuple(self._sizes.get(s, s) for s in info.shape) for info in infos]
        found = {info.name: array for info, array in zip(infos, arrays, strict=True)}
        if declared == [array.shape for array in arrays]:
            for output, array in found.items():
                self._binding.bind_ortvalue_output(output, OrtValue.ortvalue_from_numpy(array))
            self._outputs = found
        else:
            self._let_allocate()
        return found

    def _let_allocate(self) -> None:
        # A binding keeps what was allocated, and refuses a later run with outputs of other shapes.
        for output in self._backend.outputs:
            self._binding.bind_output(output.name)


def _threads_to_use() -> int:
    """0 where ONNX Runtime may choose.

    It counts the machine's cores and ties a thread to each, those that this process may not use
    included: of two threads that share a core, one spins while the other works.
    """
    cores = usable_cores()
    return 0 if cores == os.cpu_count() else cores


def _failed(error: Exception) -> ModelError:
    return ModelError(
        "the graph to run",
        got=_first_line(error),
        fix="Check that the model works with this input size.",
    )


def _info(arg: Any) -> TensorInfo:
    # A size without a name gets one, so that it is never taken for a number.
    shape = tuple(
        s if isinstance(s, (int, str)) and s != "" else f"dim_{i}" for i, s in enumerate(arg.shape)
    )
    dtype = _DTYPES.get(arg.type)
    if dtype is None:
        raise ModelError(
            f"a tensor of numbers for {arg.name}", got=arg.type, fix="Remove that input or output."
        )
    return TensorInfo(arg.name, dtype, shape)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
