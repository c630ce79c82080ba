"""Every name that this project asks of TensorRT, read off its sources, and which are missing.

Run as a program with a module's name, it prints the missing names as JSON: the way to ask a
library that can only be imported in a process of its own.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "python" / "visionrt" / "backends"
BUILDER = ROOT / "tools" / "trtconvert" / "targets"

# File -> what its variables hold: a class of the library, or "" for the module itself.
ROLES: dict[Path, dict[str, str]] = {
    RUNTIME / "trt_library.py": {"library": ""},
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
    BUILDER / "trt_progress.py": {"trt": ""},
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
        "ComputeCapability",
        "IBuilderConfig.num_compute_capabilities",
        "IBuilderConfig.set_compute_capability",
        "ICudaEngine.create_runtime_config",
        "IRuntimeCache.deserialize",
        "IRuntimeCache.serialize",
        "IRuntimeConfig.create_runtime_cache",
        "IRuntimeConfig.set_execution_context_allocation_strategy",
        "IRuntimeConfig.set_runtime_cache",
    }
)


def names_used() -> set[str]:
    """``IBuilderConfig.set_flag``, ``TensorFormat.LINEAR``, … as the sources write them."""
    found: set[str] = set()
    for path, roles in ROLES.items():
        for chain in _chains(ast.parse(path.read_text(encoding="utf-8"))):
            for start, variable in enumerate(chain[:-1]):
                if variable in roles:
                    rest = ".".join(chain[start + 1 :])
                    prefix = roles[variable]
                    found.add(f"{prefix}.{rest}" if prefix else rest)
                    break
    # ``create`` makes these by name.
    found |= {"Builder", "Runtime"}
    return {name for name in found if "__" not in name}


def _chains(tree: ast.AST) -> Iterator[list[str]]:
    """``["self", "_context", "name"]`` of every longest dotted expression."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            chain: list[str] = []
            step: ast.expr = node
            while isinstance(step, ast.Attribute):
                chain.insert(0, step.attr)
                step = step.value
            yield [step.id, *chain] if isinstance(step, ast.Name) else ["", *chain]


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


if __name__ == "__main__":
    print(json.dumps(missing(importlib.import_module(sys.argv[1]))))
