"""Runs a function of a test file in a process of its own, on the fake driver with real PyCUDA.

The driver library is chosen when a process starts, and a lost context or a leak stays with it; so
every such test is a subprocess.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "emulation"
_SECONDS = 120


class UnavailableError(Exception):
    """What this machine lacks."""


def _tool(name: str) -> Any:
    """A module of tools/dev, by name."""
    folder = str(ROOT / "tools" / "dev")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"fake_cuda_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pycuda_site() -> Path:
    """The folder that PyCUDA is in: this Python's own, or one it is installed into here.

    Raises:
        UnavailableError: it is not here and cannot be built.
    """
    # `make test` has tried before, and knows why it failed.
    problem = os.environ.get("VISIONRT_NO_PYCUDA")
    if problem:
        raise UnavailableError(f"PyCUDA cannot be built: {problem}")
    here = importlib.util.find_spec("pycuda")
    if here is not None and here.origin is not None:
        return Path(here.origin).parents[1]
    installer = _tool("install_pycuda")
    folder = installer.default_cache() / f"site-{installer.VERSION}-{sys.implementation.cache_tag}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "pycuda" / "driver.py").is_file():
            try:
                status = installer.main(["--target", str(folder)])
            except OSError as error:
                raise UnavailableError(f"PyCUDA cannot be installed: {error}") from error
            if status != 0:
                raise UnavailableError("PyCUDA cannot be built here (tools/dev/install_pycuda.py)")
    return folder


def fake_driver() -> Path:
    """The folder of the fake ``libcuda.so.1``.

    Raises:
        UnavailableError: no ``cuda.h`` or no g++.
    """
    include = _tool("cuda_headers").find_headers()
    if include is None:
        raise UnavailableError("no cuda.h: neither a CUDA toolkit nor nvidia-cuda-runtime is here")
    builder = _load(HERE / "fake_cuda" / "build_driver.py")
    try:
        return Path(builder.build(include, CACHE))
    except builder.CannotBuildError as error:
        raise UnavailableError(str(error)) from error


def tiny_kernels() -> Path:
    """The library of three small kernels, for tests of the driver itself."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise UnavailableError("no g++")
    source = HERE / "tiny_kernels.cc"
    library = CACHE / "libtiny_kernels.so"
    if not library.is_file() or library.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        made = CACHE / f"tiny_kernels.{os.getpid()}.so"
        subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(made)], check=True)
        made.replace(library)
    return library


@dataclass(frozen=True)
class FakeGpu:
    """Where the pieces are."""

    driver: Path
    pycuda: Path

    def environment(
        self, *, defers: bool = False, kernels: Path | None = None, fast: bool = False
    ) -> dict[str, str]:
        """Of a process on the fake driver.

        ``defers``: work waits until it is waited for. ``fast``: the emulation checks nothing.
        """
        paths = [ROOT / "python", ROOT / "tools", HERE, HERE / "fake_cuda", self.pycuda]
        paths.append(ROOT / "tests" / "python")
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.driver),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "VISIONRT_FAKE_CUDA_DEFERS": str(int(defers)),
            "VISIONRT_EMULATED_KERNELS": "" if kernels is None else str(kernels),
            "VISIONRT_EMULATION_FAST": str(int(fast)),
        }

    def run(
        self,
        function: Callable[..., None],
        *arguments: Any,
        loses_context: bool = False,
        **environment: Any,
    ) -> str:
        """Call a function of a test module, with arguments that JSON can hold, in a new process.

        The function's exceptions fail the test, and so do a crash, anything the driver or the
        emulation found wrong, and anything still live at the end. Returns what it printed.
        ``loses_context``: PyCUDA may warn that it cannot clean up.
        """
        code = (
            f"import fake_gpu; fake_gpu.child({function.__module__!r}, {function.__name__!r}, "
            f"{json.dumps(arguments)!r})"
        )
        where = Path(sys.modules[function.__module__].__file__ or ".").parent
        settings = self.environment(**environment)
        settings["PYTHONPATH"] += os.pathsep + str(where)
        done = _finished([sys.executable, "-X", "faulthandler", "-c", code], settings)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Exception ignored" not in done.stderr, done.stderr
        assert loses_context or "PyCUDA WARNING" not in done.stderr, done.stderr
        return done.stdout


def _finished(command: list[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=dict(env), capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def child(module: str, function: str, arguments: str) -> None:
    """In the new process: call the function, then look for findings and leaks."""
    import fake_cuda

    getattr(importlib.import_module(module), function)(*json.loads(arguments))
    assert not fake_cuda.findings(), fake_cuda.findings()
    assert not fake_cuda.leaks(), fake_cuda.leaks()
