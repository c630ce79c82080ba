"""torchvision as a peer: in this process where it is installed, else in another Python.

A process of its own runs and times each call, while this one waits for its answer. So both sides
still take turns, and neither pays for the way between them.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import OwnTime, optional
from peers import torchvision_calls

PEER_PYTHON = "VISIONRT_PEER_PYTHON"
_WORKER = Path(__file__).with_name("peers") / "torchvision_calls.py"
_STARTS_S = 120
VERSIONS: dict[str, str] = {}  # of the packages of other Pythons that answered


class PeerError(RuntimeError):
    """The other Python did not do what was asked; with what it said."""


class PeerProcess:
    """A process that makes one call again and again, and says how long each took.

    Args:
        python: the program.
        call: a name of ``torchvision_calls.CALLS``.
        arrays: what the call is given.

    Raises:
        PeerError: it does not start, or lacks what it needs.
    """

    def __init__(self, python: str, call: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="visionrt-peer-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        np.savez(folder / "arrays.npz", **arrays)
        # Neither this project nor its packages are for the other Python.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        try:
            self._process = subprocess.Popen(
                [python, str(_WORKER), call, str(folder / "arrays.npz")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise PeerError(f"{python} does not start: {error}") from error
        # A run makes its cases anew, and what the last one left would fill the memory.
        self._end = weakref.finalize(self, _end, self._process)
        self.versions: dict[str, str] = json.loads(self._answer())
        VERSIONS.update(self.versions)

    def __call__(self) -> OwnTime:
        """One call there; blocks."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        except OSError as error:
            raise PeerError(f"the other Python is gone: {error}") from error
        return OwnTime(float(self._answer()))

    def close(self) -> None:
        """End the process. May be called twice."""
        self._end()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(
                f"the other Python ended with {self._process.wait()}; it says above why"
            )
        return line


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


@cache
def torchvision_problem() -> str:
    """Why torchvision is no peer here; empty where it is one."""
    if optional("torchvision") is not None:
        return ""
    python = os.environ.get(PEER_PYTHON)
    if not python:
        return f"it is not installed, and {PEER_PYTHON} (--peer-python) names no Python that has it"
    command = [python, "-c", "import numpy, PIL, torch, torchvision"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_STARTS_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the Python of {PEER_PYTHON} does not start: {type(error).__name__}"
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing said"]
        return f"the Python of {PEER_PYTHON} cannot import it: {said[-1]}"
    return ""


def torchvision_call(call: str, **arrays: NDArray[Any]) -> dict[str, Callable[[], object]]:
    """A peer by its name; none where torchvision is neither here nor in the other Python.

    Args:
        call: a name of ``torchvision_calls.CALLS``, which is the peer's name without its module.
        arrays: what it is given.
    """
    if torchvision_problem():
        return {}
    name = f"torchvision.{call}"
    if optional("torchvision") is not None:
        return {name: torchvision_calls.CALLS[call](**arrays)}
    return {name: PeerProcess(os.environ[PEER_PYTHON], call, arrays)}
