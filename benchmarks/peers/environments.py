"""The Python that runs each peer: an environment of its own, since the peers' pins clash.

``DIR/NAME`` is a virtual environment with what ``requirements-NAME.txt`` asks for. pip's own
settings apply; where PyTorch's CPU build is on an index of its own, ``PIP_EXTRA_INDEX_URL`` names
it. ONNX Runtime is what the converter itself needs, so it runs in this Python where it has no
environment; our own code always does.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = "ours"
# Peers that this interpreter can run.
_AT_HOME = ("onnxruntime",)


def python_for(peer: str, environments: Path) -> Path | None:
    """The interpreter that runs a peer; None where there is no environment for it."""
    if peer == OURS:
        return Path(sys.executable)
    python = _python_in(environments / peer)
    if python.is_file():
        return python
    return Path(sys.executable) if peer in _AT_HOME else None


def make_environments(environments: Path, peers: Iterable[str]) -> list[str]:
    """Create what is missing, with pip; blocks for minutes. Returns the peers that failed.

    An environment whose installation failed is left without an interpreter, so that it is not
    taken for a whole one.
    """
    failed = []
    for peer in peers:
        folder = environments / peer
        requirements = HERE / f"requirements-{peer}.txt"
        if not requirements.is_file() or _python_in(folder).is_file():
            continue
        print(f"making {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        command = [str(_python_in(folder)), "-m", "pip", "install", "--quiet"]
        done = subprocess.run([*command, "-r", str(requirements)], check=False)
        if done.returncode:
            _python_in(folder).unlink()
            failed.append(peer)
    return failed


def _python_in(folder: Path) -> Path:
    return folder / "bin" / "python"
