"""Builds the emulated kernels: the project's ``.cu`` files as host libraries, with their checker.

``kernel_library()`` returns the path of a shared library with the C interface of ``library.cpp``.
Two builds of every kernel stand beside it: a checked one, and a fast one for whole frames. Builds
are kept by the hash of everything that goes into them; processes that build at the same time wait
for each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / "build" / "emulation"
RUNTIME = ("scheduler.cpp", "checker.cpp", "hooks.cpp", "library.cpp")

_COMMON = ["-std=c++17", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing", "-fno-gnu-unique"]
_RUNTIME = [*_COMMON, "-O2", "-Wall", "-Wextra", "-DEMULATION_RUNTIME=", "-U_FORTIFY_SOURCE"]
_FAST = [*_COMMON, "-O3"]
# -Og neither splits wide accesses nor moves loads, so the checker sees what the source says.
_CHECKED = [
    *_COMMON,
    *["-Og", "-g1", "-gdwarf-4", "-fsanitize=thread,alignment,bounds", "-fno-threadsafe-statics"],
    "--param=tsan-instrument-func-entry-exit=0",
]
_KERNEL = re.compile(
    r"__global__\s+void\s+(?:__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)\s*)?(\w+)\s*\("
)
_DYNAMIC_SHARED = re.compile(
    r"extern\s+__shared__\s+((?:__align__|alignas)\(\w+\)\s*)?([^;\[]*?)(\w+)\[\]\s*;"
)
_NAMESPACE = re.compile(r"^namespace\s+([\w:]+)\s*\{", re.MULTILINE)


class BuildError(RuntimeError):
    """The compiler refused; the message holds its words."""


def compiler() -> str | None:
    """The path of a GCC, or None. Clang spells the instrumentation in another way."""
    for name in (os.environ.get("CXX", ""), "g++"):
        found = shutil.which(name) if name else None
        if found and "Free Software Foundation" in _output([found, "--version"]):
            return found
    return None


def kernel_sources() -> list[Path]:
    """Every kernel file of the project."""
    return sorted((ROOT / "csrc").glob("*/*.cu"))


def kernel_names(source: Path) -> list[str]:
    """The entry points that a kernel file defines."""
    return _KERNEL.findall(source.read_text("utf-8"))


def kernel_library(sources: Sequence[Path] | None = None) -> Path:
    """The library with the kernels of ``sources`` (default: all of csrc), built when needed.

    Raises BuildError when there is no compiler or it fails. Blocks for some seconds when it builds.
    """
    gxx = compiler()
    if gxx is None:
        raise BuildError("the emulation is built by g++; none is on PATH or in CXX")
    files = list(sources) if sources is not None else kernel_sources()
    key = _key(gxx, files)
    folder, library = CACHE / key, CACHE / key / f"libemulation-{key}.so"
    if library.exists():
        return library
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=CACHE))
            try:
                _build(gxx, files, unfinished, library.name)
                shutil.rmtree(unfinished / "objects")
                unfinished.rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return library


def _key(gxx: str, sources: Sequence[Path]) -> str:
    parts = [*sorted((ROOT / "csrc").glob("*/*.h")), *sorted((ROOT / "csrc").glob("*/*.cuh"))]
    parts += [*sorted(HERE.glob("*.h")), *sorted(HERE.glob("*.cpp")), Path(__file__)]
    digest = hashlib.sha256(_output([gxx, "--version"]).encode())
    for path in [*parts, *sources]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{done.stderr[-6000:]}")


def _build(gxx: str, sources: Sequence[Path], folder: Path, library: str) -> None:
    objects = folder / "objects"
    objects.mkdir()
    includes = ["-I", str(ROOT / "csrc"), "-I", str(HERE)]
    jobs: list[list[str]] = []
    kinds: dict[str, list[str]] = {"runtime": [], "fast": [], "checked": []}

    def add(kind: str, source: Path, flags: list[str]) -> None:
        target = str(objects / f"{kind}_{source.stem}.o")
        jobs.append([gxx, *flags, *includes, "-c", str(source), "-o", target])
        kinds[kind].append(target)

    for source in sources:
        translated = objects / f"{source.stem}.cpp"
        translated.write_text(_translated(source), "utf-8")
        kernel_flags = ["-include", str(HERE / "cuda_emulation.h"), "-I", str(source.parent)]
        add("checked", translated, [*_CHECKED, *kernel_flags])
        add("fast", translated, [*_FAST, *kernel_flags])
    for name in RUNTIME:
        add("runtime", HERE / name, _RUNTIME)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(_run, jobs))

    shared = [gxx, "-shared"]
    driver = [str(HERE / "launch_driver.cpp"), "-Wl,-soname,libcuda.so.1", "-ldl"]
    _run([*shared, *_COMMON, "-O1", *driver, "-o", str(folder / "libcuda.so.1")])
    _run(
        [*shared, *kinds["runtime"], f"-Wl,-soname,{library}", "-ldl", "-o", str(folder / library)]
    )
    against = [str(folder / library), "-Wl,-rpath,$ORIGIN"]
    _run([*shared, *kinds["fast"], *against, "-o", str(folder / "libfast.so")])
    wrap = ["-Wl,--wrap=memcpy", "-Wl,--wrap=memset"]
    checked = folder / "libchecked.so"
    _run([*shared, *kinds["checked"], *against, *wrap, "-o", str(checked)])
    (folder / "shared_variables.txt").write_text(_shared_variables(checked), "utf-8")


def _shared_variables(library: Path) -> str:
    """Address, size, kind and name of every writable static variable inside a function."""
    command = ["nm", "-S", "--defined-only", str(library)]
    raw, readable = (_output(c).splitlines() for c in (command, [*command, "-C"]))
    return "".join(
        re.sub(r"\(.*\)", "", line) + "\n"
        for symbol, line in zip(raw, readable, strict=True)
        if re.match(r"\w+ \w+ [bBdDvVu] _ZZ", symbol)
    )


def _translated(source: Path) -> str:
    """The file itself, its entry points added to the emulator's table.

    A declaration of dynamic shared memory has no meaning to a host compiler: it is the one line
    that is changed.
    """
    text = source.read_text("utf-8")
    body = _DYNAMIC_SHARED.sub(
        r"\2* const \3 = static_cast<\2*>(emulation::dynamic_shared());", text
    )
    namespaces = sorted(set(_NAMESPACE.findall(text)))
    return "\n".join(
        [
            '#include "kernel_table.h"',
            f'#line 1 "{source}"',
            body,
            *(f"using namespace {name};" for name in namespaces),
            *(f"EMULATED_KERNEL({name})" for name in kernel_names(source)),
            "",
        ]
    )
