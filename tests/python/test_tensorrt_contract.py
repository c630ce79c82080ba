"""What the code asks of TensorRT exists there, and behaves as the code assumes."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import tensorrt_contract as contract
import tensorrt_rtx as rtx

from visionrt.backends.trt_io import _NUMPY_NAMES
from visionrt.backends.trt_library import logger_of, member, version_of

# The C functions that the bindings of full TensorRT import from its libraries.
_ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getInferLibVersion",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


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
    ):
        assert name in names
    assert len(names) > 50


def test_tensorrt_rtx_has_every_name() -> None:
    assert contract.missing(rtx) == []


def test_full_tensorrt_has_every_name(tmp_path: Path) -> None:
    """Its bindings import against libraries that only have the entry points."""
    if importlib.util.find_spec("tensorrt_bindings") is None:
        pytest.skip("not run: names of full TensorRT; pip install tensorrt-cu13-bindings")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("not run: names of full TensorRT; it needs a C compiler")
    bindings = ("tensorrt-cu13-bindings", "tensorrt-cu12-bindings")
    version = next(v for v in map(_version, bindings) if v)
    source = tmp_path / "entry_points.c"
    source.write_text("\n".join(f"void* {name}(void) {{ return 0; }}" for name in _ENTRY_POINTS))
    for library in _LIBRARIES:
        name = f"lib{library}.so.{version.partition('.')[0]}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", tmp_path / name]
        subprocess.run([*command, source], check=True)
    out = subprocess.run(
        [sys.executable, contract.__file__, "tensorrt_bindings"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(json.loads(out.stdout)) <= contract.RTX_ONLY, version


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


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
