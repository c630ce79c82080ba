"""A build in its own process: cancelling, crashes, interrupts, and how far it says it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pytest
import tensorrt_rtx as rtx
from onnx import TensorProto, helper, numpy_helper

from trtconvert.targets.base import BuildCancelledError
from trtconvert.targets.build_process import BuildRequest, build_in_child
from trtconvert.targets.rtx import RtxTarget
from trtconvert.targets.trt_builder import PlanOptions, build_plan
from trtconvert.targets.trt_progress import PhaseTracker
from visionrt.child_python import child_python
from visionrt.errors import BuildError, MissingDependencyError

SM86 = PlanOptions(compute_capabilities=("86",))


def conv() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def test_an_exception_in_the_callback_is_not_lost() -> None:
    def progress(done: float, text: str) -> bool:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        build_plan(rtx, conv(), {}, SM86, progress)
    with pytest.raises(ZeroDivisionError, match="mine"):
        RtxTarget(("86",)).build(conv(), {}, progress)
    assert psutil.Process().children() == []


def test_false_cancels() -> None:
    with pytest.raises(BuildCancelledError):
        build_plan(rtx, conv(), {}, SM86, lambda done, text: False)
    with pytest.raises(BuildCancelledError):
        RtxTarget(("86",)).build(conv(), {}, lambda done, text: False)
    assert psutil.Process().children() == []


def test_a_crash_of_the_builder_is_a_build_error(models: Path) -> None:
    def progress(done: float, text: str) -> bool:
        (child,) = psutil.Process().children()
        child.send_signal(signal.SIGSEGV)
        return True

    graph = (models / "ssd_mobilenet_v2_coco.onnx").read_bytes()
    request = BuildRequest("tensorrt_rtx", graph, {}, SM86)
    with pytest.raises(BuildError, match="SIGSEGV"):
        build_in_child(request, progress)


# Builds over and over, so that a signal always meets a build under way.
_BUILDER = textwrap.dedent(
    """
    import os, sys, time
    from trtconvert.targets.rtx import RtxTarget
    graph = open(sys.argv[1], "rb").read()
    def progress(done, text):
        print("building", flush=True)
        return True
    if __name__ == "__main__":
        try:
            while True:
                RtxTarget(("86",)).build(graph, {}, progress)
        except KeyboardInterrupt:
            sys.exit(130)
    """
)


def is_over(process: psutil.Process) -> bool:
    """Whether it has ended; an orphan may stay a zombie until the system's init looks at it."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_an_interrupted_build_leaves_nothing(
    models: Path, tmp_path: Path, how: signal.Signals
) -> None:
    script = tmp_path / "build.py"
    script.write_text(_BUILDER)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    _, environment = child_python("")
    tool = subprocess.Popen(
        [sys.executable, script, models / "ssd_mobilenet_v2_coco.onnx"],
        env={**environment, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert tool.stdout is not None
    assert tool.stdout.readline() == b"building\n"
    children = psutil.Process(tool.pid).children()
    start = time.perf_counter()
    os.killpg(tool.pid, how)  # as a terminal does
    code = tool.wait(10)
    while not all(map(is_over, children)) and time.perf_counter() - start < 10:
        time.sleep(0.005)
    latency = time.perf_counter() - start
    tool.stdout.close()
    assert code == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert children
    assert latency < 5  # 0.05 to 0.07 s on an idle machine
    assert list(temporary.iterdir()) == []
    assert tempfile.gettempdir() != str(temporary)


def test_phases_become_one_fraction() -> None:
    tracker = PhaseTracker()
    assert tracker.fraction() == 0
    tracker.start("all", None, 4)
    tracker.step("all", 0)
    assert tracker.fraction() == 0.25
    tracker.start("part", "all", 2)
    tracker.step("part", 0)
    assert tracker.fraction() == 0.25 + 0.5 / 4
    tracker.start("inner", "part", 10)
    tracker.step("inner", 4)
    assert tracker.fraction() == 0.25 + (0.5 + 0.5 / 2) / 4
    tracker.finish("inner")
    assert tracker.fraction() == 0.25 + (0.5 + 0.5 / 2) / 4  # never falls
    tracker.finish("part")
    tracker.step("all", 3)
    tracker.step("unknown", 3)
    assert tracker.fraction() == 1
    tracker.finish("all")
    assert tracker.fraction() == 1


def test_a_phase_inside_itself_ends() -> None:
    tracker = PhaseTracker()
    tracker.start("a", None, 2)
    tracker.start("b", "a", 2)
    tracker.start("a", "b", 2)
    assert tracker.fraction() == 0


def test_a_missing_library_is_told_by_the_child_as_well() -> None:
    request = BuildRequest("tensorrt", conv(), {}, PlanOptions())
    with mock.patch.dict(os.environ, {"TRT_LOG_FOUND_DLLS": "0"}):
        try:
            import tensorrt  # noqa: F401
        except ImportError:
            with pytest.raises(MissingDependencyError, match=r"trtconvert\[tensorrt\]"):
                build_in_child(request, None)
        else:
            pytest.skip("TensorRT is installed here, so it is not missing")
