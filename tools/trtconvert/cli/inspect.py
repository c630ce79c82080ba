"""``trtconvert inspect``: what is inside a model, an engine file or a plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from trtconvert.cli.arguments import PATH, json_flag
from trtconvert.cli.show import megabytes, print_json, print_table, recipe_rows
from trtconvert.inspect import inspect as inspect_file

_FACTS = (
    *("bytes", "sha256", "name", "created_by", "source", "header", "producer", "opset"),
    *("precision", "twin_precision", "nodes_by_precision", "verification", "weights"),
)


@click.command(short_help="Show what a model or an engine file holds.")
@click.argument("file", type=PATH)
@json_flag
def inspect(file: Path, as_json: bool) -> None:
    """Show inputs, outputs, recipe, precisions, plans, operators and hashes of FILE."""
    found = inspect_file(file)
    if as_json:
        print_json(found)
        return
    tensors = [
        (side, t["name"], t["dtype"], list(t["shape"]))
        for side in ("inputs", "outputs")
        for t in found.get(side, ())
    ]
    print_table(f"{file}: {found['kind']}", ("what", "value"), _facts(found))
    if tensors:
        print_table("tensors", ("side", "name", "type", "shape"), tensors)
    if found.get("recipe"):
        rows = [(key, value) for key, value, _ in recipe_rows(found["recipe"], {})]
        print_table("recipe", ("field", "value"), rows)
    if found.get("plans"):
        plans = [
            (p["target"], p["backend"], p["library_version"], _size_of(found, p["member"]))
            for p in found["plans"]
        ]
        print_table("plans", ("target", "backend", "version", "size"), plans)
    if found.get("members"):
        members = [(k, megabytes(v["bytes"]), v["sha256"]) for k, v in found["members"].items()]
        print_table("members", ("name", "size", "sha256"), members)


def _facts(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [(key, found[key]) for key in _FACTS if found.get(key)]
    operators = found.get("operators", {})
    # An engine file has one table per graph, a model only its own.
    graphs = operators if found["kind"] == "engine" else {"operators": operators}
    for name, counts in graphs.items():
        if counts:
            facts.append((name, ", ".join(f"{n} {op}" for op, n in counts.items())))
    return facts


def _size_of(found: Mapping[str, Any], member: str) -> str:
    return megabytes(found["members"][member]["bytes"])
