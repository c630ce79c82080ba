"""What every runner shares: a job in JSON comes in, a quantized graph and a line of JSON go out.

A runner is started by the Python of its own environment, so this needs only NumPy and what every
Python has. The job is a file:

===============  =================================================================================
key              value
===============  =================================================================================
``model``        path of the clean float32 ONNX graph; one input, a fixed batch of 1
``calibration``  folder of ``.npy`` tensors, each one input of the model; read in sorted order
``output``       path to write the quantized graph to
``settings``     what the method under test sets, by the runner's own keys
``recipe``       of the model, as ``Recipe.to_json`` gives it
``photos``       the image files that the tensors were made of, in their order
===============  =================================================================================

The last line that a runner prints is a JSON object: ``versions`` of the packages that it used, and
what the imports alone took, ``import_cpu_seconds`` and ``import_peak_rss_bytes``.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Job:
    """One graph to quantize; see the module."""

    model: Path
    calibration: Path
    output: Path
    settings: dict[str, Any]
    recipe: dict[str, Any]
    photos: tuple[Path, ...]

    def tensors(self) -> list[Path]:
        """The calibration tensors' files, sorted."""
        return sorted(self.calibration.glob("*.npy"))

    def load(self, tensor: Path) -> NDArray[Any]:
        """One tensor with its batch dimension."""
        array: NDArray[Any] = np.load(tensor)
        return array

    def to_json(self) -> dict[str, Any]:
        """JSON types, for :func:`read_job`."""
        paths = {key: str(getattr(self, key)) for key in ("model", "calibration", "output")}
        rest = {"settings": self.settings, "recipe": self.recipe}
        return {**paths, **rest, "photos": [str(photo) for photo in self.photos]}


def read_job(path: Path) -> Job:
    """The job in a file."""
    value = json.loads(path.read_text())
    paths = {key: Path(value[key]) for key in ("model", "calibration", "output")}
    photos = tuple(Path(photo) for photo in value["photos"])
    return Job(**paths, settings=value["settings"], recipe=value["recipe"], photos=photos)


def serve(quantize: Callable[[Job], None], packages: Sequence[str]) -> None:
    """Do the job that the command line names, and print the closing line.

    Args:
        quantize: writes ``job.output``.
        packages: whose versions are told.
    """
    # macOS counts bytes, Linux KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    imports = {
        "import_cpu_seconds": time.process_time(),
        "import_peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }
    quantize(read_job(Path(sys.argv[1])))
    versions = {name: importlib.metadata.version(name) for name in packages}
    closing = {"versions": versions, **imports}
    print("\n" + json.dumps(closing), flush=True)
