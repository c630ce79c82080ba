"""Builds the fake ``libcuda.so.1`` with g++ into a cache folder.

The sources include the real ``cuda.h``, so that a signature that differs from the driver's does
not compile. Every other function that ``cuda.h`` declares exists too: it returns
CUDA_ERROR_NOT_SUPPORTED and notes its name.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
ROOT = SOURCES.parents[2]
# Of cudaProfiler.h, which the PyPI wheels of CUDA lack.
_PROFILER = ["cuProfilerInitialize", "cuProfilerStart", "cuProfilerStop"]
_FLAGS = ["-std=c++17", "-O1", "-g", "-fPIC", "-Wall", "-Wextra", "-Werror"]
_DECLARED = re.compile(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(")
_RENAMED = re.compile(r"#\s*define\s+cu[A-Z]\w*\s+(?:__CUDA_API_PT[SD]Z\()?(cu[A-Z]\w*)\)?")


class CannotBuildError(Exception):
    """What is missing on this machine."""


def functions_of(header: Path) -> list[str]:
    """Every driver function: those ``cuda.h`` declares, or renames to, and the profiler's."""
    text = header.read_text(encoding="utf-8", errors="replace")
    return sorted({*_DECLARED.findall(text), *_RENAMED.findall(text), *_PROFILER})


def build(include: Path, cache: Path) -> Path:
    """The folder that holds ``libcuda.so.1``; built once per content, safe for several processes.

    Raises:
        CannotBuildError: no g++.
    """
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise CannotBuildError("no g++")
    sources = sorted(SOURCES.glob("*.cpp"))
    digest = hashlib.sha256(str(include).encode())
    for file in sorted([*sources, *SOURCES.glob("*.h"), Path(__file__)]):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = cache / f"fake-cuda-{digest.hexdigest()[:16]}"
    if (folder / "libcuda.so.1").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "fake-cuda.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "libcuda.so.1").is_file():
            with tempfile.TemporaryDirectory(dir=cache) as made:
                _compile(compiler, sources, include, Path(made))
                folder.mkdir(exist_ok=True)
                (Path(made) / "libcuda.so.1").replace(folder / "libcuda.so.1")
    return folder


def _compile(compiler: str, sources: list[Path], include: Path, work: Path) -> None:
    rest = work / "rest.cpp"
    # Weak: an implementation elsewhere takes its place.
    lines = [
        'extern "C" {',
        "int fake_cuda_unsupported(const char*);",
        "#define REST(name) \\",
        "  __attribute__((weak)) int name() { return fake_cuda_unsupported(#name); }",
        *(f"REST({name})" for name in functions_of(include / "cuda.h")),
        "}",
    ]
    rest.write_text("\n".join([*lines, ""]), encoding="utf-8")

    def compile_one(source: Path) -> str:
        target = str(work / f"{source.stem}.o")
        command = [compiler, *_FLAGS, "-isystem", str(include), "-I", str(SOURCES)]
        _run([*command, "-c", str(source), "-o", target])
        return target

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        objects = list(pool.map(compile_one, [*sources, rest]))
    soname = "libcuda.so.1"
    library = str(work / soname)
    _run(
        [compiler, "-shared", f"-Wl,-soname,{soname}", *objects, "-o", library, "-ldl", "-pthread"]
    )


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]), Path(sys.argv[2]))}\n")
