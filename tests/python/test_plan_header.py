"""What a blob is: real plans, plans cut short, look-alikes and garbage."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
import tensorrt_rtx as rtx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from visionrt.backends.trt_library import logger_of
from visionrt.errors import EngineFileError
from visionrt.plan_header import (
    ONNX,
    TENSORRT,
    TENSORRT_RTX,
    ULTRALYTICS,
    UNKNOWN,
    ZIP,
    PlanHeader,
    describe,
    loading_problem,
    split_ultralytics,
    version_problem,
)

VERSION = rtx.__version__


def conv_model() -> bytes:
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [weight],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def build(*sms: str) -> bytes:
    """A real plan, by the library alone."""
    logger, log = logger_of(rtx)
    builder = rtx.Builder(logger)
    network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = rtx.OnnxParser(network, logger)
    assert parser.parse(conv_model())
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(sms)
    for index, sm in enumerate(sms):
        assert config.set_compute_capability(getattr(rtx.ComputeCapability, f"SM{sm}"), index)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, log.since(0)
    return bytes(plan)


@pytest.fixture(scope="module")
def plan() -> bytes:
    return build("86")


@pytest.mark.parametrize(
    "sms", [("75",), ("80",), ("86",), ("89",), ("120",), ("121",), ("86", "89", "120")]
)
def test_real_plans_say_their_gpus(sms: tuple[str, ...]) -> None:
    header = describe(build(*sms))
    assert header == PlanHeader(TENSORRT_RTX, VERSION, sms, 0)
    assert header.library == "tensorrt_rtx"


def test_in_words(plan: bytes) -> None:
    assert str(describe(plan)) == f"a TensorRT-RTX plan {VERSION} for SM86"
    assert str(describe(b"")) == "unknown bytes"


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 20, 27, 28, 35, 63, 64, 100, -1])
def test_a_plan_cut_short(plan: bytes, keep: int) -> None:
    kept = plan[:keep]
    header = describe(kept)
    if len(kept) < 4:
        assert header.kind == UNKNOWN
        return
    assert header.kind == TENSORRT_RTX
    missing = len(plan) - len(kept) if len(kept) >= 64 else 64 - len(kept)
    assert header.missing_bytes == missing
    problem = loading_problem(
        header, library=TENSORRT_RTX, library_version=VERSION, compute_capability="86"
    )
    assert f"the last {missing} bytes are missing" in problem


def test_a_gpu_mask_with_unknown_bits_leaves_it_to_the_library(plan: bytes) -> None:
    strange = plan[:32] + struct.pack("<I", 1 << 6 | 1 << 2) + plan[36:]
    assert describe(strange).compute_capabilities == ()


def standard_plan(version: tuple[int, int, int, int]) -> bytes:
    return b"ftrt".ljust(24, b"\0") + bytes(version) + bytes(100)


def test_standard_plans() -> None:
    assert describe(standard_plan((10, 13, 2, 6))) == PlanHeader(TENSORRT, "10.13.2.6")
    assert describe(standard_plan((0, 200, 2, 6))) == PlanHeader(TENSORRT, "")
    assert describe(b"ftrt").missing_bytes == 24


def ultralytics(metadata: object, plan: bytes) -> bytes:
    head = json.dumps(metadata).encode()
    return struct.pack("<I", len(head)) + head + plan


def test_ultralytics(plan: bytes) -> None:
    metadata = {"task": "detect", "names": {"0": "pêche"}, "imgsz": [640, 640]}
    for inner in (plan, standard_plan((10, 12, 0, 36))):
        blob = ultralytics(metadata, inner)
        header = describe(blob)
        assert header.kind == ULTRALYTICS
        assert header.library == ""
        assert header.version == describe(inner).version
        assert split_ultralytics(blob) == (metadata, inner)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x02\0\0\0{",
        b"\x02\0\0\0[]",
        b"\x02\0\0\0{x" + bytes(20),
        b"\xff\xff\xff\xff{}" + bytes(20),
        b"\x04\0\0\0{xx}" + bytes(20),
        b"\x05\0\0\0" + b"{\xff\xff\xff}" + bytes(20),
        ultralytics([1], b"vtrt" + bytes(64)),
    ],
)
def test_not_ultralytics(blob: bytes) -> None:
    assert describe(blob).kind == UNKNOWN
    with pytest.raises(EngineFileError, match="Ultralytics"):
        split_ultralytics(blob)


def test_ultralytics_around_something_else() -> None:
    blob = ultralytics({"task": "detect"}, b"PK\x03\x04")
    assert describe(blob).kind == UNKNOWN
    assert split_ultralytics(blob)[1] == b"PK\x03\x04"


def test_onnx_and_zip(models: Path) -> None:
    paths = sorted(models.glob("*.onnx"))
    assert paths
    for path in paths:
        assert describe(path.read_bytes()[:64]).kind == ONNX
    assert describe(conv_model()).kind == ONNX
    named = onnx.load_from_string(conv_model())
    named.ClearField("producer_name")
    assert describe(named.SerializeToString()).kind == ONNX
    assert describe(b"PK\x03\x04rest").kind == ZIP
    assert describe(b"PK\x05\x06" + bytes(18)).kind == ZIP


@given(st.binary(max_size=200))
def test_never_fails_on_garbage(blob: bytes) -> None:
    assert str(describe(blob))


@given(st.binary(max_size=80), st.sampled_from([b"vtrt", b"ftrt", b"PK\x03\x04", b"\x08\x08"]))
def test_never_fails_on_almost(tail: bytes, head: bytes) -> None:
    assert describe(head + tail).missing_bytes >= 0


@pytest.mark.parametrize(
    ("built", "loading", "words"),
    [
        ("10.13.2.6", "10.13.2.6", ""),
        ("10.12.0.36", "10.13.2.6", ""),  # may be version compatible
        ("10.13.2.6", "10.13.2.9", ""),
        ("10.13.2.9", "10.13.2.6", ""),
        ("10.13.2.6", "10.12.0.36", "newer"),
        ("10.13.2.6", "11.4.0.106", "major"),
        ("11.0.0.1", "10.16.0.1", "major"),
        ("", "10.13.2.6", ""),
        ("1.7.1.116", "unknown", ""),
    ],
)
def test_versions(built: str, loading: str, words: str) -> None:
    problem = version_problem(built, loading)
    assert bool(problem) == bool(words)
    assert words in problem


def test_loading_problems() -> None:
    header = PlanHeader(TENSORRT_RTX, "1.7.1.116", ("86", "89"))
    here = {"library_version": "1.7.1.116", "compute_capability": "86"}
    assert loading_problem(header, library=TENSORRT_RTX, **here) == ""
    assert "does not load" in loading_problem(header, library=TENSORRT, **here)
    here["compute_capability"] = "120"
    assert "SM86, SM89, not SM120" in loading_problem(header, library=TENSORRT_RTX, **here)
