"""Finds a folder with ``cuda.h``: of a CUDA toolkit, or of NVIDIA's wheels from PyPI.

Run with ``--path`` to print it; exits 1 and prints nothing where there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def candidates() -> Iterator[Path]:
    """Folders that may hold ``cuda.h``, best first."""
    for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if root:
            yield from _includes_of(Path(root))
    on_path = shutil.which("nvcc")
    if on_path:
        # The nvcc on PATH may be a link or a wrapper outside the toolkit's tree.
        yield from _includes_of(Path(on_path).resolve().parents[1])
    yield from _includes_of(Path("/usr/local/cuda"))
    packages = [sysconfig.get_path("purelib"), *site.getsitepackages()]
    for folder in dict.fromkeys([*packages, *sys.path]):
        yield from wheel_headers(Path(folder))


def wheel_headers(site_packages: Path) -> list[Path]:
    """Folders of headers of NVIDIA's wheels in a ``site-packages``: CUDA 13's, then older ones."""
    nvidia = site_packages / "nvidia"
    newest = sorted(nvidia.glob("cu[0-9]*/include"), reverse=True)
    return [*newest, nvidia / "cuda_runtime" / "include"]


def version_of(include: Path) -> int | None:
    """CUDA_VERSION of a folder's ``cuda.h``, like 13000 for 13.0; None where there is none."""
    try:
        text = (include / "cuda.h").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"#\s*define\s+CUDA_VERSION\s+(\d+)", text)
    return int(found.group(1)) if found else None


def find_headers(newest: int | None = None) -> Path | None:
    """The first folder with a ``cuda.h`` whose major version is at most that of ``newest``."""
    for include in candidates():
        version = version_of(include)
        if version is not None and (newest is None or version // 1000 <= newest // 1000):
            return include
    return None


def _includes_of(root: Path) -> Iterator[Path]:
    yield root / "include"
    yield from sorted(root.glob("targets/*/include"))


def main() -> int:
    """Print the folder."""
    found = find_headers()
    if found is None:
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
