"""``trtconvert check``: will it build, for which target, and what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trtconvert.check import TargetCheck, check_target
from trtconvert.check_notes import notes_on_graph
from trtconvert.clean import clean_model
from trtconvert.cli.arguments import (
    PATH,
    edit_flags,
    json_flag,
    shape_flags,
    take_edits,
    take_shape_flags,
)
from trtconvert.cli.show import print_json, print_table, print_warnings
from trtconvert.input_spec import spec_from_text
from trtconvert.load import load_model
from trtconvert.shapes import input_ranges
from trtconvert.targets import parse_targets
from visionrt.errors import MissingDependencyError, ModelError


@click.command()
@click.argument("model", type=PATH)
@click.option("--target", "targets", multiple=True, metavar="TARGET", help="Default: all of them.")
@edit_flags
@shape_flags
@json_flag
def check(model: Path, targets: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Say for each target whether MODEL will build. Exit 3 when the model is in the way."""
    edits, shapes = take_edits(flags), take_shape_flags(flags)
    chosen = parse_targets(targets or ("rtx", "tensorrt", "cpu"))
    loaded = load_model(model, edits)
    # Only the size matters here, so any preset without normalisation does.
    spec, _ = spec_from_text("none", loaded.model, shapes)
    warnings: list[str] = []
    ranges = input_ranges(loaded.model, spec, shapes)
    clean = clean_model(loaded.model, ranges, warnings=warnings)
    checks = [check_target(clean, target) for target in chosen]
    notes = notes_on_graph(loaded.model, clean, shapes)
    if as_json:
        found = {"model": str(model), "targets": [c.to_json() for c in checks]}
        print_json({**found, "warnings": warnings, "notes": [note._asdict() for note in notes]})
    else:
        print_warnings(warnings)
        print_table(str(model), ("target", "builds", "problem", "what to do"), _rows(checks))
        print_table("to know", ("about", "note"), notes)
    if any(found.problems for found in checks):
        click.get_current_context().exit(ModelError.exit_code)
    # Without --target, what this machine lacks for some targets is information, not failure.
    if targets and any(found.missing for found in checks):
        click.get_current_context().exit(MissingDependencyError.exit_code)


def _rows(checks: list[TargetCheck]) -> list[tuple[str, str, str, str]]:
    rows = []
    for found in checks:
        if found.builds:
            rows.append((found.target, "yes", "", ""))
        if found.missing:
            rows.append((found.target, "not here", found.missing, ""))
        alike: dict[tuple[str, str], list[str]] = {}
        for problem in found.problems:
            alike.setdefault((problem.reason, problem.fix), []).append(problem.node)
        for (reason, fix), nodes in alike.items():
            more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
            rows.append((found.target, "no", f"{nodes[0]}{more}: {reason}", fix))
    return rows
