"""Says which system packages a build needs and this machine lacks. Exits 6 if any is missing."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
from pathlib import Path


def problems() -> list[str]:
    """One line per missing thing: what, and how to get it."""
    out = []
    version = sys.version_info[:2]
    if not (3, 10) <= version <= (3, 13):
        out.append(
            f"Python {version[0]}.{version[1]} is not supported: 3.10 to 3.13 are. "
            "Choose one: make PYTHON=python3.11 …"
        )
    if importlib.util.find_spec("ensurepip") is None:
        out.append("Python's venv module: apt-get install python3-venv")
    if not any(map(shutil.which, ("g++", "c++", "clang++"))):
        out.append("a C++17 compiler: apt-get install g++")
    if not any(map(shutil.which, ("gcc", "cc", "clang"))):
        out.append("a C compiler: apt-get install gcc")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        out.append("Python's C headers: apt-get install python3-dev")
    return out


def main() -> int:
    """Print what is missing."""
    missing = problems()
    for line in missing:
        sys.stderr.write(f"missing: {line}\n")
    return 6 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
