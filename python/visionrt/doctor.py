"""Finds out what works on this machine, what does not, and what to do about it.

Every library is tried in a process of its own, so that one that crashes when it is imported is
reported instead of ending the report.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from visionrt.child_python import child_python
from visionrt.errors import VisionrtError

# Library -> the distributions that may have brought it, the one to install first.
_DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "openvino": ("openvino",),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    "tensorrt": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt"),
    "gpu": ("pycuda",),
}
_INSTALL = {
    "onnxruntime": "pip install onnxruntime",
    "openvino": 'pip install "trtconvert[openvino]"',
    "tensorrt_rtx": 'pip install "trtconvert[rtx]"',
    "tensorrt": 'pip install "trtconvert[tensorrt]"',
    "gpu": "pip install pycuda",
}
_CPU = ("onnxruntime", "openvino")
_GPU = ("tensorrt_rtx", "tensorrt")
_USED_BY_RUNTIME = ("numpy", "pillow", "simplejpeg")
_USED_BY_CONVERTER = ("onnx", "onnx-ir", "onnxslim", "onnxruntime", "click", "rich", "plotly")
_TIMEOUT_S = 60
_EXIT_MISSING = 6

WORKS, MISSING, BROKEN, BLOCKED = "works", "not installed", "broken", "no GPU"

# y = -x for one float32: as an ONNX ModelProto of opset 13. Enough to see a back end run.
_NEGATION = bytes.fromhex(
    "080812003a320a0b0a017812017922034e65671201675a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a00100d"
)


@dataclass(frozen=True)
class Check:
    """What was found of one library.

    Attributes:
        name: of the library; ``gpu`` stands for driver, PyCUDA and device together.
        version: of the installed distribution; empty when none is installed.
        state: ``works``, ``not installed``, ``broken`` (there, but it fails) or ``no GPU``.
        problem: what failed, in words; empty when it works.
        cure: the command or step that helps; empty when it works.
        details: of the GPU: name, compute capability, memory, driver.
    """

    name: str
    version: str
    state: str
    problem: str = ""
    cure: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that was found. ``exit_code`` is 0 when a model can run at least on the CPU."""

    system: dict[str, str]
    cpu: tuple[Check, ...]
    gpu: Check
    gpu_libraries: tuple[Check, ...]
    packages: dict[str, str]
    converter_missing: tuple[str, ...]
    will_use: dict[str, str]
    warnings: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, or 6 when not even the CPU can run a model."""
        return 0 if any(check.state == WORKS for check in self.cpu) else _EXIT_MISSING

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        return {**dataclasses.asdict(self), "ok": self.exit_code == 0}


def examine() -> Report:
    """Try everything; takes a few seconds."""
    names = (*_CPU, *_GPU, "gpu")
    # All at once: most of the time goes into loading libraries.
    children = {name: _start_probe(name) for name in names}
    found = {name: _finish_probe(name, child) for name, child in children.items()}
    gpu = found["gpu"]
    libraries = tuple(_blocked_without(gpu, found[name]) for name in _GPU)
    cpu = tuple(found[name] for name in _CPU)
    system = _system()
    return Report(
        system=system,
        cpu=cpu,
        gpu=gpu,
        gpu_libraries=libraries,
        packages={name: _version(name) for name in _USED_BY_RUNTIME},
        converter_missing=tuple(n for n in _USED_BY_CONVERTER if not _version(n)),
        will_use={
            "engine plans": next((c.name for c in libraries if c.state == WORKS), ""),
            "cpu twin": next((c.name for c in cpu if c.state == WORKS), ""),
        },
        warnings=tuple(_warnings(gpu, libraries, system)),
    )


def _start_probe(name: str) -> subprocess.Popen[str]:
    command, environment = child_python(f"from {__name__} import probe_main; probe_main({name!r})")
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _finish_probe(name: str, child: subprocess.Popen[str]) -> Check:
    installed = _installed(name)
    version = installed[0][1] if installed else ""
    try:
        out, err = child.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        problem = f"no answer within {_TIMEOUT_S} s"
        return Check(name, version, BROKEN, problem, f"Run: {_INSTALL[name]} --force-reinstall")
    lines = out.splitlines()
    if child.returncode == 0 and lines:
        # What a library prints while it loads comes before the answer.
        answer = json.loads(lines[-1])
        problem, details = answer["problem"], answer["details"]
        state = WORKS if not problem else BROKEN if installed else MISSING
        if name == "gpu" and problem:
            state = BLOCKED
        version = version or details.get("library", "")
        return Check(name, version, state, problem, answer["cure"], details)
    code = child.returncode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    words = err.strip().splitlines()[-1:]
    problem = f"loading it ended Python with {how}{': ' + words[0] if words else ''}"
    return Check(name, version, BROKEN, problem, f"Run: {_INSTALL[name]} --force-reinstall")


def _blocked_without(gpu: Check, library: Check) -> Check:
    if library.state == WORKS and gpu.state != WORKS:
        return dataclasses.replace(library, state=BLOCKED, problem="it needs a usable GPU")
    return library


def _warnings(gpu: Check, libraries: Sequence[Check], system: dict[str, str]) -> list[str]:
    out = []
    for name in _DISTRIBUTIONS:
        installed = [f"{n} {v}" for n, v in _installed(name)]
        if len(installed) > 1:
            out.append(
                f"{' and '.join(installed)} overwrite each other's files. "
                f"Uninstall all of them, then run: {_INSTALL[name]}"
            )
    if gpu.state == WORKS:
        if all(check.state != WORKS for check in libraries):
            out.append(f"There is a GPU, but nothing to run plans with. {libraries[0].cure}")
        if system["cuda kernels"] == "no":
            out.append(
                "There is a GPU, but this build has no CUDA kernels, so images are prepared on "
                "the CPU. Install the wheel, or build with nvcc on PATH."
            )
    return out


def _system() -> dict[str, str]:
    from visionrt import _core

    return {
        "visionrt": _version("trtconvert") or "not installed as a package",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda kernels": "yes" if _core.has_kernels() else "no",
    }


def _installed(name: str) -> list[tuple[str, str]]:
    pairs = [(dist, _version(dist)) for dist in _DISTRIBUTIONS[name]]
    return [(dist, version) for dist, version in pairs if version]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def probe_main(name: str) -> None:
    """Entry of a probe's process: try one library and print what came of it as JSON."""
    answer: dict[str, Any] = {"problem": "", "cure": "", "details": {}}
    try:
        answer["details"] = _PROBES[name]()
    except VisionrtError as error:
        answer.update(problem=error.got, cure=error.fix)
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


def _run_onnxruntime() -> dict[str, Any]:
    from visionrt.backends.onnxruntime import OnnxRuntimeBackend

    return _run_negation(OnnxRuntimeBackend(_NEGATION, threads=1))


def _run_openvino() -> dict[str, Any]:
    from visionrt.backends.openvino import OpenVinoBackend

    return _run_negation(OpenVinoBackend(_NEGATION, threads=1))


def _run_negation(backend: Any) -> dict[str, Any]:
    import numpy as np

    (result,) = backend.run({"x": np.array([2.5], np.float32)}).values()
    backend.close()
    if result.tolist() != [-2.5]:
        raise VisionrtError("-2.5", got=f"{result.tolist()} for -(2.5)", fix="Reinstall it.")
    return {}


def _load_tensorrt() -> dict[str, Any]:
    return _load_library("tensorrt")


def _load_tensorrt_rtx() -> dict[str, Any]:
    return _load_library("tensorrt_rtx")


def _load_library(name: str) -> dict[str, Any]:
    from visionrt.backends.trt_library import load_library

    return {"library": str(load_library(name).__version__)}


def _find_gpu() -> dict[str, Any]:
    from visionrt.device import gpu_info

    return dataclasses.asdict(gpu_info(0))


_PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "onnxruntime": _run_onnxruntime,
    "openvino": _run_openvino,
    "tensorrt": _load_tensorrt,
    "tensorrt_rtx": _load_tensorrt_rtx,
    "gpu": _find_gpu,
}
