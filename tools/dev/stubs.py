"""Writes python/visionrt/_core.pyi from the compiled module. ``make stubs`` runs it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = "# Generated from the compiled module by tools/dev/stubs.py; do not edit.\n"


def generate() -> str:
    """The stub of visionrt._core, formatted."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["pybind11_stubgen", "visionrt._core", "--output-dir", folder]
        command += ["--numpy-array-use-type-var", "--exit-code"]
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
        path = Path(folder) / "visionrt" / "_core.pyi"
        path.write_text(HEADER + path.read_text())
        config = ["--config", str(ROOT / "pyproject.toml")]
        ruff = [sys.executable, "-m", "ruff"]
        fix = ["check", "--quiet", "--fix", "--select", "I,UP,F401", *config, str(path)]
        subprocess.run([*ruff, *fix], check=True)
        subprocess.run([*ruff, "format", "--quiet", *config, str(path)], check=True)
        return path.read_text()


def main() -> None:
    """Write the stub."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "python/visionrt/_core.pyi")

    parser.parse_args().output.write_text(generate())


if __name__ == "__main__":
    main()
