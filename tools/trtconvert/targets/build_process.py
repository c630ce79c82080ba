"""Runs a build in a process of its own, so that it can be killed and may crash.

The parent sends the request down the child's stdin and reads messages from its stdout, both as
pickles between two processes of one program. A crash of the native builder ends the child, not
the tool; an interrupt kills the child wherever the builder is: 0.05 to 0.07 s from Ctrl-C to the
end of both, measured, where the builder itself would first finish a step that takes most of the
build. Nothing is written to disk except the child's stderr, in a file without a name.

A child whose parent died sees its stdin end and exits.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

from trtconvert.targets.base import BuildCancelledError, ProgressCallback, ShapeRange
from trtconvert.targets.trt_builder import BuildResult, PlanOptions, build_plan
from visionrt.backends.trt_library import load_library
from visionrt.child_python import child_python
from visionrt.errors import BuildError, VisionrtError

_QUOTED_STDERR_BYTES = 2000
_PICKLE_PROTOCOL = 5


@dataclass(frozen=True)
class BuildRequest:
    """What the child builds.

    Attributes:
        library: ``tensorrt`` or ``tensorrt_rtx``.
        model: a serialized typed ONNX graph.
        shapes: by input name.
        options: see ``trt_builder``.
    """

    library: str
    model: bytes = field(repr=False)
    shapes: Mapping[str, ShapeRange]
    options: PlanOptions


@dataclass(frozen=True)
class _Progress:
    done: float
    text: str


_Message = _Progress | BuildResult | VisionrtError | str


def build_in_child(request: BuildRequest, progress: ProgressCallback | None) -> BuildResult:
    """Build in a child process; blocks until it is over.

    An exception in this thread, a ``KeyboardInterrupt`` included, kills the child first.

    Raises:
        BuildCancelledError: ``progress`` returned False.
        BuildError: the child crashed, or failed for a reason that is no error of this project.
        VisionrtError: whatever ``build_plan`` raised in the child.
    """
    command, environment = child_python(f"from {__name__} import child_main; child_main()")
    with tempfile.TemporaryFile() as stderr:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            # A Ctrl-C in the terminal goes to this process alone, which then kills the child.
            start_new_session=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            message = _exchange(child.stdin, child.stdout, request, progress)
        except _ChildDiedError as error:
            raise _crashed(child.wait(), stderr) from error.__cause__
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
            _close_broken(child.stdin)
    if isinstance(message, BuildResult):
        if progress is not None:
            progress(1.0, "Built")
        return message
    if isinstance(message, VisionrtError):
        raise message
    raise BuildError(
        "the builder process to make a plan",
        got=str(message),
        fix="Report this, with the model if you can.",
    )


class _ChildDiedError(Exception):
    """A pipe to the child broke."""


def _exchange(
    to_child: IO[bytes],
    from_child: IO[bytes],
    request: BuildRequest,
    progress: ProgressCallback | None,
) -> _Message:
    try:
        pickle.dump(request, to_child, protocol=_PICKLE_PROTOCOL)
        to_child.flush()  # and stays open: its end tells the child that this process is gone
    except BrokenPipeError as error:
        raise _ChildDiedError from error
    while True:
        try:
            message: _Message = pickle.load(from_child)
        except (EOFError, pickle.UnpicklingError) as error:
            raise _ChildDiedError from error
        if not isinstance(message, _Progress):
            return message
        if progress is not None and not progress(message.done, message.text):
            raise BuildCancelledError(
                "a finished build", got="a request to stop", fix="Start it again."
            )


def _close_broken(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        # What was still buffered for the killed child has nowhere to go.
        return


def _crashed(code: int, stderr: IO[bytes]) -> BuildError:
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, stderr.tell() - _QUOTED_STDERR_BYTES))
    words = " ".join(stderr.read().decode(errors="replace").split())
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    if code == -signal.SIGKILL:
        cause += " (killed from outside, often for want of memory)"
    return BuildError(
        "the builder process to live until the plan was made",
        got=f"{cause}{': ' + words if words else ''}",
        fix="Close other programs if memory was short; else try another precision or target.",
    )


def child_main() -> None:
    """Entry of the child: one request from stdin, messages and one result to stdout."""
    # The native library prints to descriptor 1 as it likes; the protocol gets a private one.
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    stdin = sys.stdin.buffer
    request: BuildRequest = pickle.load(stdin)
    threading.Thread(target=exit_with_parent, args=(stdin,), daemon=True).start()
    lock = threading.Lock()

    def send(message: _Message) -> None:
        with lock:
            pickle.dump(message, stdout, protocol=_PICKLE_PROTOCOL)
            stdout.flush()

    last = -1.0

    def progress(done: float, text: str) -> bool:
        nonlocal last
        # Thousands of steps are reported; a hundred are worth a message.
        if done - last >= 0.01:
            last = done
            send(_Progress(done, text))
        return True

    try:
        library = load_library(request.library)
        send(build_plan(library, request.model, request.shapes, request.options, progress))
    except VisionrtError as error:
        send(error)
    except Exception as error:  # noqa: BLE001 - told to the parent, which raises it
        send(f"{type(error).__name__}: {error}")
    # Skips the destructors of a library that may have failed half way.
    os._exit(0)


def exit_with_parent(stdin: IO[bytes]) -> None:
    """End this process when its stdin ends: for a thread that is started for it."""
    stdin.read(1)
    os._exit(1)
