"""The process in which the runtime has a plan built, for the GPU that it found.

On stdin: a line of JSON (``library``, ``compute_capability``, ``shapes``, ``graph_bytes``), then
the typed graph. On stdout: a line of JSON (``library_version``, ``plan_bytes``), then the plan; or
a line that describes an error of this project (``error``, ``expected``, ``got``, ``fix``).
Needs nothing but the TensorRT library, of all that the converter uses.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from trtconvert.targets.base import ShapeRange
from trtconvert.targets.build_process import exit_with_parent
from trtconvert.targets.trt_builder import BuildResult, PlanOptions, build_plan
from visionrt.backends.trt_library import TENSORRT_RTX, load_library
from visionrt.errors import VisionrtError


def main() -> None:
    """Entry of the process: one request, one answer."""
    # The native library prints to descriptor 1 as it likes; the protocol gets a private one.
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stdin = sys.stdin.buffer
    request: Mapping[str, Any] = json.loads(stdin.readline())
    graph = stdin.read(request["graph_bytes"])
    threading.Thread(target=exit_with_parent, args=(stdin,), daemon=True).start()
    plan = b""
    answer: dict[str, Any]
    try:
        result = _build(request, graph)
    except VisionrtError as error:
        answer = _described(type(error).__name__, error.expected, error.got, error.fix)
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        got = f"{type(error).__name__}: {error}"
        answer = _described("BuildError", "the builder to make a plan", got, "Report this.")
    else:
        plan = result.plan
        answer = {"library_version": result.library_version, "plan_bytes": len(plan)}
    stdout.write(json.dumps(answer).encode() + b"\n")
    stdout.write(plan)
    stdout.flush()
    # Skips the destructors of a library that may have failed half way.
    os._exit(0)


def _build(request: Mapping[str, Any], graph: bytes) -> BuildResult:
    library = load_library(request["library"])
    # TensorRT-RTX is told for which GPU; full TensorRT builds for the one that it sees.
    is_told = request["library"] == TENSORRT_RTX
    sms = (str(request["compute_capability"]),) if is_told else ()
    shapes = {
        name: ShapeRange(*(tuple(shape) for shape in limits))
        for name, limits in request["shapes"].items()
    }
    return build_plan(library, graph, shapes, PlanOptions(compute_capabilities=sms), None)


def _described(kind: str, expected: str, got: str, fix: str) -> dict[str, Any]:
    return {"error": kind, "expected": expected, "got": got, "fix": fix}
