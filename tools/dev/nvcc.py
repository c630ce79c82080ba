"""Finds nvcc and its companions: on PATH, in CUDA_HOME, in /usr/local/cuda, or in the PyPI wheels.

Run with ``--path`` to print the compiler's path; exits 1 and prints nothing where there is none.
"""

from __future__ import annotations

import os
import shutil
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path


def candidates(tool: str = "nvcc") -> Iterator[Path]:
    """Places a tool of the CUDA toolkit may be, best first."""
    on_path = shutil.which(tool)
    if on_path:
        yield Path(on_path)
    for root in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"):
        if root:
            yield Path(root) / "bin" / tool
    packages = [sysconfig.get_path("purelib"), *site.getsitepackages()]
    # Build isolation hides site-packages, but puts the environment's own on sys.path.
    for folder in dict.fromkeys([*packages, *sys.path]):
        yield from sorted(Path(folder).glob(f"nvidia/cu*/bin/{tool}"), reverse=True)


def find_tool(tool: str) -> Path | None:
    """The first tool of this name that exists and may be executed, or None."""
    for path in candidates(tool):
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def find_nvcc() -> Path | None:
    """The first nvcc that exists and may be executed, or None."""
    return find_tool("nvcc")


def main() -> int:
    """Print the path of nvcc."""
    found = find_nvcc()
    if found is None:
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
