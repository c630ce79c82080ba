"""What the tests of real exports share: the Python that has the libraries, and runs in it.

Optional: set ``VISIONRT_EXPORT_PYTHON`` to a Python (3.11 was used) and run ``pytest -m exports``.
It must have:

    pip install torch torchvision onnx onnxscript keras effdet 'openvino-model-api[onnx]'
    pip install 'setuptools<80' pandas requests seaborn ultralytics && pip install --no-deps yolov5

Weights are random: what is checked is the graph.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PYTHON = os.environ.get("VISIONRT_EXPORT_PYTHON")
MARKS = [
    pytest.mark.exports,
    pytest.mark.slow,
    pytest.mark.skipif(
        PYTHON is None, reason="VISIONRT_EXPORT_PYTHON names no Python with torch and keras"
    ),
]


def run_there(script: str, *arguments: str | Path) -> None:
    """Run a script of this folder in that Python."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(PYTHON), str(Path(__file__).with_name(script)), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
