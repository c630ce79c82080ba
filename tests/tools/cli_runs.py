"""Runs of the command line on a tiny classifier, for its tests."""

from __future__ import annotations

from pathlib import Path

from trtconvert.cli.app import run

RECIPE = ["--task", "classify", "--preprocess", "tf"]
JSON_KEYS = [
    "engine", "precision", "targets", "nodes_by_precision", "flops_by_precision", "calibration",
    "verification", "search", "warnings",
]  # fmt: skip


def build(folder: Path, *more: object, output: str = "tiny.engine") -> int:
    """Exit code of ``build`` for the CPU; writes ``output`` in the folder."""
    arguments = ["build", folder / "tiny.onnx", "-o", folder / output, *RECIPE]
    arguments += ["--target", "cpu", "--images", folder / "pictures", *more]
    return run([str(argument) for argument in arguments])
