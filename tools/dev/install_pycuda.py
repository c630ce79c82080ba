"""Builds and installs PyCUDA where plain pip fails.

``pip install pycuda`` needs the CUDA toolkit's tree around the ``nvcc`` on PATH, libcurand and
libcuda. Here the headers may come from a toolkit or from NVIDIA's wheels, the linker gets a stub
in libcuda's place (the driver's own is used at run time), and curand is left out. The wheel is
kept, so that the second run takes a second.

    python tools/dev/install_pycuda.py                      # into this Python
    python tools/dev/install_pycuda.py --python .venv/bin/python
    python tools/dev/install_pycuda.py --target FOLDER      # into a folder, for PYTHONPATH

Exits 5 when the build fails and 6 when something it needs is missing.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from cuda_headers import find_headers, version_of, wheel_headers

VERSION = "2026.1"
_SONAME = "libcuda.so.1"
_BUILD_FAILED, _MISSING = 5, 6
# cudaProfiler.h belongs to a package of its own; PyCUDA uses three functions of it.
_PROFILER_HEADER = """\
#pragma once
#include <cuda.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef enum CUoutput_mode_enum {
  CU_OUT_KEY_VALUE_PAIR = 0x00,
  CU_OUT_CSV = 0x01
} CUoutput_mode;
CUresult CUDAAPI cuProfilerInitialize(const char*, const char*, CUoutput_mode);
CUresult CUDAAPI cuProfilerStart(void);
CUresult CUDAAPI cuProfilerStop(void);
#ifdef __cplusplus
}
#endif
"""
_CONFIGURATION = """\
USE_SHIPPED_BOOST = True
CUDA_TRACE = False
CUDA_ROOT = None
CUDA_INC_DIR = {include!r}
CUDA_ENABLE_GL = False
CUDA_ENABLE_CURAND = False
CUDADRV_LIB_DIR = [{stub!r}]
CUDADRV_LIBNAME = ["cuda"]
CUDART_LIB_DIR = []
CUDART_LIBNAME = []
CURAND_LIB_DIR = []
CURAND_LIBNAME = []
CXXFLAGS = []
LDFLAGS = ["-Wl,--no-as-needed"]
"""


class InstallError(Exception):
    """What is missing or failed, with the exit code."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def default_cache() -> Path:
    """Where wheels are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "visionrt" / "pycuda"


def driver_version() -> int | None:
    """CUDA version of the installed driver, like 13000; None without a driver."""
    version = ctypes.c_int()
    try:
        status = ctypes.CDLL(_SONAME).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return version.value if status == 0 and version.value else None


def headers_for(driver: int | None, python: Path, cache: Path) -> Path:
    """A folder with a ``cuda.h`` that the driver can serve; fetched from PyPI where need be."""
    found = find_headers(driver)
    if found is not None:
        return found
    major = 13 if driver is None else driver // 1000
    package = f"nvidia-cuda-runtime=={major}.*" if major >= 13 else "nvidia-cuda-runtime-cu12==12.*"
    folder = cache / f"headers-{major}"
    if not any(version_of(include) for include in wheel_headers(folder)):
        _say(f"No CUDA headers here: fetching {package}")
        _pip(python, "install", "--no-deps", "--target", str(folder), package)
    for include in wheel_headers(folder):
        if version_of(include) is not None:
            return include
    raise InstallError(
        f"cuda.h of CUDA {major} was found neither here nor in {package}. "
        "Install the CUDA toolkit or set CUDA_HOME.",
        _MISSING,
    )


def wheel_for(python: Path, version: str, include: Path, cache: Path) -> Path:
    """The wheel for a Python and a CUDA version, built unless it is kept already.

    Raises:
        InstallError: no compiler, or the build failed.
    """
    tag = _output([str(python), "-c", "import sys; print(sys.implementation.cache_tag)"])
    key = hashlib.sha256(f"{version} {tag} {version_of(include)}".encode()).hexdigest()[:8]
    folder = cache / f"{version}-{tag}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for wheel in folder.glob("*.whl"):
            return wheel
        with tempfile.TemporaryDirectory(dir=folder) as work:
            built = _build(python, version, include, Path(work))
            kept = folder / built.name
            return built.replace(kept)


def _build(python: Path, version: str, include: Path, work: Path) -> Path:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise InstallError("a C++ compiler is needed: apt-get install g++", _MISSING)
    _say(f"Building PyCUDA {version} with the headers of {include} (about two minutes)")
    _pip(
        python, "download", "--no-deps", "--no-binary", "pycuda", "--dest", str(work),
        f"pycuda=={version}",
    )  # fmt: skip
    with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
        # Debian 12's Python 3.11.2 has no filters yet.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(work, **safe)
    source = next(path for path in work.glob("pycuda-*") if path.is_dir())
    stub = work / "stub"
    make_stub(compiler, include, stub)
    includes = [str(include)]
    if not (include / "cudaProfiler.h").is_file():
        extra = work / "headers"
        extra.mkdir()
        (extra / "cudaProfiler.h").write_text(_PROFILER_HEADER, encoding="utf-8")
        includes.append(str(extra))
    (source / "siteconf.py").write_text(
        _CONFIGURATION.format(include=includes, stub=str(stub)), encoding="utf-8"
    )
    _pip(
        python,
        "wheel",
        "--no-deps",
        "--no-cache-dir",
        "--wheel-dir",
        str(work / "dist"),
        str(source),
    )
    return next((work / "dist").glob("pycuda-*.whl"))


def make_stub(compiler: str, include: Path, folder: Path) -> None:
    """Write a ``libcuda.so`` for the linker: one empty function, and the real one's soname."""
    folder.mkdir()
    source = folder / "stub.c"
    source.write_text("void cuInit(void) {}\n", encoding="utf-8")
    _run(
        [compiler, "-x", "c", "-shared", "-fPIC", f"-Wl,-soname,{_SONAME}", str(source),
         "-o", str(folder / "libcuda.so")]
    )  # fmt: skip


def install(python: Path, wheel: Path, target: Path | None) -> None:
    """Install a wheel, with what it imports, into a Python or a folder."""
    where = [] if target is None else ["--target", str(target), "--upgrade"]
    # numpy is there already, and a second one in a target folder would shadow it.
    _pip(python, "install", "--force-reinstall", "--no-deps", *where, str(wheel))
    _pip(python, "install", *where, "pytools>=2011.2", "platformdirs>=2.2", "mako")


def check(python: Path, target: Path | None, driver: int | None) -> str:
    """One line: whether it imports. Without a driver it cannot."""
    if driver is None:
        return "installed; it imports where an NVIDIA driver is (libcuda.so.1)"
    paths = [] if target is None else [str(target)]
    paths += [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    code = "import pycuda.driver as d; d.init(); print(d.Device.count())"
    try:
        count = _output([str(python), "-c", code], {"PYTHONPATH": os.pathsep.join(paths)})
    except InstallError as error:
        raise InstallError(f"installed, but it does not work: {error}", _BUILD_FAILED) from error
    return f"installed; it finds {count} GPU(s)"


def _pip(python: Path, *arguments: str) -> None:
    _run([str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments])


def _run(command: list[str]) -> None:
    _output(command)


def _output(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        last = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise InstallError(
            f"{' '.join(command)}\nended with {done.returncode}:\n{last}", _BUILD_FAILED
        )
    return done.stdout.strip()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main(arguments: list[str] | None = None) -> int:
    """Build, install, and say whether it works."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="install into it")
    parser.add_argument("--target", type=Path, help="install into this folder instead")
    parser.add_argument("--version", default=VERSION, help=f"of PyCUDA; default {VERSION}")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where wheels are kept")
    parser.add_argument("--wheel-only", action="store_true", help="print the wheel's path, no more")
    options = parser.parse_args(arguments)
    try:
        driver = driver_version()
        include = headers_for(driver, options.python, options.cache)
        wheel = wheel_for(options.python, options.version, include, options.cache.resolve())
        if options.wheel_only:
            sys.stdout.write(f"{wheel}\n")
            return 0
        install(options.python, wheel, options.target)
        _say(f"PyCUDA {options.version}: {check(options.python, options.target, driver)}")
    except InstallError as error:
        _say(f"PyCUDA was not installed: {error}")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
