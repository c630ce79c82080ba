"""What the code asks of TensorRT exists there, and behaves as the code assumes."""

from __future__ import annotations

import importlib.util
import json
from importlib import metadata
from pathlib import Path

import pytest
import tensorrt_contract as contract
import tensorrt_rtx as rtx

from visionrt.backends.trt_io import _NUMPY_NAMES
from visionrt.backends.trt_library import logger_of, member, version_of


def test_the_sources_are_read() -> None:
    names = contract.names_used()
    for name in (
        "Runtime",
        "Runtime.deserialize_cuda_engine",
        "TensorIOMode.INPUT",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_output_allocator",
        "Builder.build_serialized_network",
        "IBuilderConfig.set_memory_pool_limit",
        "IOptimizationProfile.set_shape",
        "ParserError.node_operator",
        "IExecutionContext.is_stream_capturable",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "IProgressMonitor.step_complete",
    ):
        assert name in names
    assert len(names) > 50


def test_every_file_that_uses_tensorrt_is_read() -> None:
    assert contract.files_without_roles() == {}


def test_tensorrt_rtx_has_every_name() -> None:
    assert contract.missing(rtx) == []
    _list(f"TensorRT-RTX {rtx.__version__}", contract.names_used())


@pytest.mark.parametrize("module", ["tensorrt_rtx_bindings", "tensorrt_bindings"])
def test_methods_that_the_classes_do_not_show_are_called(module: str) -> None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"not run: {module} is not installed")
    (library,) = Path(spec.origin).parent.glob("tensorrt*.so")
    program = library.read_bytes()
    for name in contract.OVERRIDDEN_ONLY:
        assert f"\0{name.rpartition('.')[2]}\0".encode() in program


@pytest.mark.parametrize("version", contract.stored_versions())
def test_stored_names_of_full_tensorrt_hold_every_name(version: str) -> None:
    """``pytest -rA`` lists the names."""
    wanted = contract.names_used() - contract.RTX_ONLY
    assert wanted - contract.stored_names(version) == set()
    # Or a name would be left out of the comparison that full TensorRT has come to have.
    assert contract.stored_names(version) & contract.RTX_ONLY == set()
    _list(f"TensorRT {version}", wanted)


def test_the_oldest_supported_and_a_current_version_are_stored() -> None:
    assert {version.rpartition(".")[0] for version in contract.stored_versions()} >= {
        "10.12.0",
        "11.4.0",
    }
    # What moved between them shows that the lists are of different libraries.
    older, newer = (contract.stored_names(v) for v in ("10.12.0.36", "11.4.0.106"))
    assert "BuilderFlag.INT8" in older - newer
    assert "NetworkDefinitionCreationFlag.EXPLICIT_BATCH" in older - newer
    assert newer - older


def test_installed_bindings_of_full_tensorrt_have_every_name() -> None:
    """They import against libraries that only have the entry points."""
    version = next(filter(None, map(_version, _BINDINGS)), "")
    try:
        lacking = json.loads(contract.ask_bindings())
    except (ModuleNotFoundError, FileNotFoundError) as error:
        pytest.skip(f"not run: names of full TensorRT; it needs {error}")
    assert set(lacking) <= contract.RTX_ONLY, version
    _list(f"TensorRT {version}, installed", contract.names_used() - set(lacking))


def test_the_stored_names_are_the_bindings() -> None:
    version = next(filter(None, map(_version, _BINDINGS)), "")
    if version not in contract.stored_versions():
        pytest.skip(f"not run: the stored names are of other versions than {version or 'none'}")
    try:
        names = contract.ask_bindings("--dump").split()
    except FileNotFoundError as error:
        pytest.skip(f"not run: names of full TensorRT; it needs {error}")
    assert set(names) == contract.stored_names(version)


_BINDINGS = ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _list(title: str, names: set[str]) -> None:
    print(f"{title} has all {len(names)} names:", *sorted(names), sep="\n  ")


def test_data_types_are_numpys() -> None:
    for name, numpy_name in _NUMPY_NAMES.items():
        assert rtx.nptype(getattr(rtx.DataType, name)).__name__.rstrip("_") == numpy_name


def test_flags_are_found_by_name() -> None:
    flags = rtx.NetworkDefinitionCreationFlag
    assert member(flags, "STRONGLY_TYPED") == flags.STRONGLY_TYPED
    assert member(flags, "EXPLICIT_BATCH") is None


def test_version_numbers() -> None:
    class Library:
        __version__ = "10.13.2.6"

    assert version_of(Library) == (10, 13, 2, 6)
    Library.__version__ = "11.0.0rc1"
    assert version_of(Library) == (11, 0)


def test_the_first_logger_stays() -> None:
    """The reason for one logger per process: a later one is ignored while the first is in use."""
    heard: list[str] = []

    class Later(rtx.ILogger):
        def __init__(self) -> None:
            rtx.ILogger.__init__(self)

        def log(self, severity: object, msg: str) -> None:
            heard.append(msg)

    logger, _ = logger_of(rtx)
    builder = rtx.Builder(logger)
    later = Later()
    other = rtx.Builder(later)
    assert any("is ignored" in text for text in heard)
    assert logger_of(rtx)[0] is logger
    del builder, other


def test_errors_come_before_warnings_and_the_log_is_bounded() -> None:
    _, log = logger_of(rtx)
    mark = log.mark()
    assert log.quote_since(mark) == "no message from the library"
    log.add(is_error=False, text="a  warning\n of two lines")
    assert log.since(mark) == ("a warning of two lines",)
    for k in range(1000):
        log.add(is_error=True, text=f"error {k}")
    assert len(log.since(mark)) <= 64
    assert log.quote_since(mark) == "error 997; error 998; error 999"
