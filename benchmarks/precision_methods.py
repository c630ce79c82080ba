"""The tools and methods of the comparison, and how one is run on one model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measured_child import Usage, run_measured
from peers.environments import HERE, OURS
from peers.protocol import Job

_ONNXRUNTIME_SCOPES: dict[str, dict[str, Any]] = {
    "all operators": {"operators": None},
    "convolutions": {"operators": ["Conv"]},
    # As TensorRT fuses: what a convolution writes is rounded after its activation, if at all.
    "inputs of convolutions": {"operators": ["Conv"], "float_outputs": ["Conv"]},
}


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        peer: the tool: ``ours``, or the name of its requirements and runner.
        name: of the method, for people.
        settings: for the peer's runner.
    """

    peer: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


METHODS = (
    Method(OURS, "default"),
    Method(OURS, "no layer raised", {"least_snr_db": 0.0, "least_total_snr_db": 0.0}),
    *(
        Method("onnxruntime", f"{scope}: {name}", {"method": method, **settings})
        for scope, settings in _ONNXRUNTIME_SCOPES.items()
        for name, method in (
            ("min-max", "MinMax"),
            ("entropy", "Entropy"),
            ("percentile 99.99", "Percentile"),
        )
    ),
    Method("nncf", "default", {"fast_bias_correction": True}),
    Method("nncf", "accurate bias correction", {"fast_bias_correction": False}),
    Method("modelopt", "max", {"method": "max"}),
    Method("modelopt", "entropy", {"method": "entropy"}),
)
PEERS = tuple(dict.fromkeys(method.peer for method in METHODS))
METHOD_NAMES = tuple(dict.fromkeys(method.name for method in METHODS))


class PeerError(Exception):
    """A tool gave no graph; the message is the last line of what it printed."""


def run_method(
    python: Path, method: Method, job: Job, *, cores: int | None, timeout_s: float
) -> tuple[Usage, dict[str, Any]]:
    """Quantize one model; blocks. Returns what it used and the runner's closing line.

    Raises:
        PeerError: it failed, wrote nothing, or took longer than ``timeout_s``.
    """
    job_file = job.output.with_suffix(".json")
    job_file.write_text(json.dumps(job.to_json()))
    command = [str(python), str(HERE / f"run_{method.peer}.py"), str(job_file)]
    try:
        usage = run_measured(
            command, environment=_environment(method.peer), cores=cores, timeout_s=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"not done after {timeout_s:.0f} s") from error
    if usage.returncode or not job.output.exists():
        lines = usage.stderr.strip().splitlines() or [f"exit status {usage.returncode}"]
        raise PeerError(lines[-1])
    closing: dict[str, Any] = json.loads(usage.stdout.strip().splitlines()[-1])
    return usage, closing


def _environment(peer: str) -> dict[str, str]:
    environment = dict(os.environ)
    if peer == OURS:
        # What this interpreter imports from, whether installed or not.
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    else:
        environment.pop("PYTHONPATH", None)
    return environment
