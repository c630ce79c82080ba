"""Every name that this project asks of TensorRT, read off its sources, and which are missing.

As a program it asks a library in a process of its own:

    tensorrt_contract.py tensorrt_rtx                       # the used names that it lacks, as JSON
    tensorrt_contract.py tensorrt_bindings --stub --dump    # every public name, one a line

``--stub`` makes the bindings of full TensorRT importable on a machine without its libraries, by
libraries that have the entry points alone. tests/python/tensorrt_names holds such dumps; for
another version, put the folder of its unpacked ``tensorrt-cu12-bindings`` or
``tensorrt-cu13-bindings`` wheel first on PYTHONPATH and redirect the output to VERSION.txt.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "python" / "visionrt" / "backends"
CONVERTER = ROOT / "tools" / "trtconvert"
BUILDER = CONVERTER / "targets"
STORED = Path(__file__).parent / "tensorrt_names"

# File -> what its variables hold: a class of the library, or "" for the module itself.
ROLES: dict[Path, dict[str, str]] = {
    RUNTIME / "trt_library.py": {"library": "", "severity": "ILogger.Severity"},
    RUNTIME / "trt_io.py": {"trt": "", "engine": "ICudaEngine"},
    RUNTIME / "trt_lane.py": {
        "trt": "",
        "raw": "IExecutionContext",
    },
    RUNTIME / "trt_context.py": {
        "trt": "",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
        "config": "IRuntimeConfig",
        "cache": "IRuntimeCache",
        "_cache": "IRuntimeCache",
    },
    RUNTIME / "tensorrt.py": {"library": "", "_runtime": "Runtime"},
    CONVERTER / "check.py": {
        "library": "",
        "builder": "Builder",
        "parser": "OnnxParser",
        "parser_error": "ParserError",
    },
    BUILDER / "trt_progress.py": {"trt": ""},
    BUILDER / "rtx.py": {"library": ""},
    BUILDER / "trt_builder.py": {
        "trt": "",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "error": "ParserError",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "cache": "ITimingCache",
        "layer": "ILayer",
        "tensor": "ITensor",
    },
}
# Only TensorRT-RTX has these, and they are used with it alone.
RTX_ONLY = frozenset(
    {
        "BuilderFlag.REQUIRE_USER_ALLOCATION",
        "ComputeCapability",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "IExecutionContext.is_stream_capturable",
        "IRuntimeCache.deserialize",
        "IRuntimeCache.serialize",
        "IRuntimeConfig.create_runtime_cache",
        "IRuntimeConfig.set_runtime_cache",
    }
)
# The bindings look these up on the caller's object; their class does not show them.
OVERRIDDEN_ONLY = frozenset(
    {
        "IOutputAllocator.notify_shape",
        "IOutputAllocator.reallocate_output",
        "IOutputAllocator.reallocate_output_async",
    }
)
# The C functions that the bindings of full TensorRT import from its libraries.
_ENTRY_POINTS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getInferLibVersion",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
# Functions that take a name as text: getattr(context, "…") and member(enum, "…").
_LOOKUPS = ("getattr", "member")


def names_used() -> set[str]:
    """``IBuilderConfig.set_flag``, ``TensorFormat.LINEAR``, … as the sources write them."""
    found: set[str] = set()
    for path, roles in ROLES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for chain in (*_chains(tree), *_overridden(tree)):
            for start, variable in enumerate(chain[:-1]):
                if variable in roles:
                    rest = ".".join(chain[start + 1 :])
                    prefix = roles[variable]
                    found.add(f"{prefix}.{rest}" if prefix else rest)
                    break
    # ``create`` makes these by name.
    found |= {"Builder", "Runtime"}
    return {name for name in found if "__" not in name} - OVERRIDDEN_ONLY


def files_without_roles() -> dict[str, list[str]]:
    """Files outside ROLES that use a method that only TensorRT's classes have, and which."""
    classes = {kind for roles in ROLES.values() for kind in roles.values() if kind}
    methods = set()
    for version in stored_versions():
        for name in stored_names(version):
            kind, _, method = name.rpartition(".")
            if kind in classes and "_" in method:
                methods.add(method)
    out = {}
    for folder in (ROOT / "python", ROOT / "tools"):
        for path in sorted(folder.rglob("*.py")):
            if path in ROLES:
                continue
            chains = _chains(ast.parse(path.read_text(encoding="utf-8")))
            # ONNX has an infer_shapes, too.
            used = {chain[-1] for chain in chains if chain[0] != "onnx"} & methods
            if used:
                out[str(path.relative_to(ROOT))] = sorted(used)
    return out


def _chains(tree: ast.AST) -> Iterator[list[str]]:
    """``["self", "_context", "name"]`` of every longest dotted expression and lookup by text."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            yield _chain(node)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in _LOOKUPS:
            name = node.args[1]
            if isinstance(name, ast.Constant):
                yield [*_chain(node.args[0]), str(name.value)]


def _overridden(tree: ast.AST) -> Iterator[list[str]]:
    """``["trt", "IOutputAllocator", "notify_shape"]``: what the library calls of a subclass."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                for item in node.body:
                    if isinstance(item, ast.FunctionDef):
                        yield [*_chain(base), item.name]


def _chain(step: ast.expr) -> list[str]:
    chain: list[str] = []
    while isinstance(step, ast.Attribute):
        chain.insert(0, step.attr)
        step = step.value
    return [step.id if isinstance(step, ast.Name) else "", *chain]


def missing(library: Any) -> list[str]:
    """The used names that the library lacks."""
    out = []
    for name in sorted(names_used()):
        value = library
        for part in name.split("."):
            if not hasattr(value, part):
                out.append(name)
                break
            value = getattr(value, part)
    return out


def public_names(library: Any) -> Iterator[str]:
    """``Name``, ``Class.name`` and ``Class.Nested.name`` of everything public."""
    for name in sorted(dir(library)):
        if not name.startswith("_"):
            yield name
            value = getattr(library, name)
            if isinstance(value, type):
                yield from (f"{name}.{inner}" for inner in public_names(value))


def stored_versions() -> list[str]:
    """The versions of TensorRT of which all public names are stored."""
    return sorted(path.stem for path in STORED.glob("*.txt"))


def stored_names(version: str) -> set[str]:
    """All public names of a stored version."""
    return set((STORED / f"{version}.txt").read_text(encoding="utf-8").split())


def ask_bindings(*arguments: str) -> str:
    """What this program prints of the installed bindings of full TensorRT.

    Raises:
        ModuleNotFoundError: they are not installed.
        FileNotFoundError: no C compiler.
    """
    spec = importlib.util.find_spec("tensorrt_bindings")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install tensorrt-cu13-bindings")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("a C compiler")
    # The libraries carry the major version in their names.
    text = Path(spec.origin).read_text(encoding="utf-8")
    major = re.findall(r"__version__ *= *[\"'](\d+)", text)[0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "entry_points.c"
        functions = [f"void* {name}(void) {{ return 0; }}" for name in _ENTRY_POINTS]
        source.write_text("\n".join(functions), encoding="utf-8")
        for library in _LIBRARIES:
            name = f"lib{library}.so.{major}"
            command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}"]
            subprocess.run([*command, "-o", f"{folder}/{name}", str(source)], check=True)
        out = subprocess.run(
            [sys.executable, __file__, "tensorrt_bindings", *arguments],
            env={**os.environ, "LD_LIBRARY_PATH": folder},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return out.stdout


def main() -> None:
    """Print the missing names, or every name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--stub", action="store_true", help="over libraries without functions")
    parser.add_argument("--dump", action="store_true", help="every public name, one a line")
    options = parser.parse_args()
    if options.stub:
        sys.stdout.write(ask_bindings(*["--dump"][: options.dump]))
        return
    library = importlib.import_module(options.module)
    print("\n".join(public_names(library)) if options.dump else json.dumps(missing(library)))


if __name__ == "__main__":
    main()
