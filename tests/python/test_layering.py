"""Imports go one way, and each heavy library is imported in one file only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "python" / "visionrt"
CONVERTER = ROOT / "tools" / "trtconvert"

# Library -> the only files that may import it.
ONE_FILE = {
    "onnxruntime": {"visionrt/backends/onnxruntime.py"},
    "openvino": {"visionrt/backends/openvino.py"},
    "pycuda": {"visionrt/device.py"},
    "tensorrt": {"visionrt/backends/trt_library.py"},
    "tensorrt_rtx": {"visionrt/backends/trt_library.py"},
}


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """(module, line, at module level) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            top.add(child)
            stack.append(child)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, node in top
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno, node in top


def files() -> list[tuple[str, Path]]:
    out = []
    for package in (RUNTIME, CONVERTER):
        paths = sorted(package.rglob("*.py"))
        out += [(path.relative_to(package.parent).as_posix(), path) for path in paths]
    return out


def test_there_are_files_to_check() -> None:
    names = [name for name, _ in files()]
    assert "visionrt/pipeline.py" in names
    assert "trtconvert/convert.py" in names


@pytest.mark.parametrize(("name", "path"), files(), ids=[n for n, _ in files()])
def test_imports_go_one_way(name: str, path: Path) -> None:
    for module, line, at_top in imports(path):
        package = module.partition(".")[0]
        where = f"{name}:{line} imports {module}"
        if name.startswith("visionrt/"):
            assert package not in ("trtconvert", "onnx", "onnx_ir", "onnxslim"), where
            assert package not in ("torch", "cv2"), where
        if package in ONE_FILE:
            assert name in ONE_FILE[package], where
            assert not at_top, f"{where} when it is itself imported; import it lazily"


def test_import_is_light_and_quick() -> None:
    """`import visionrt` loads no heavy library, and nothing that the budget has no room for."""
    code = "import sys, visionrt; print(*sorted(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"onnx", "torch", "cv2", "tensorrt", "tensorrt_rtx", "onnxruntime", "openvino"}
    heavy |= {"pycuda", "click", "rich", "PIL.Image", "supervision"}
    assert not heavy & set(out)


def test_import_takes_less_than_120_ms() -> None:
    """The best of several fresh interpreters, less the interpreter's own start."""
    code = "import time; t = time.perf_counter(); import visionrt; print(time.perf_counter() - t)"
    best = min(
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(5)
    )
    assert best < 0.120
