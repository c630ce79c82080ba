"""``trtconvert verify``: an engine file's graphs against the original model, again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trtconvert.cli.arguments import PATH, edit_flags, json_flag, quiet_flag, take_edits
from trtconvert.cli.progress import Bars
from trtconvert.cli.show import print_json, print_table, print_warnings
from trtconvert.reverify import reverify
from trtconvert.verify import MaxDrop


@click.command(short_help="Compare ENGINE with its model again.")
@click.argument("engine", type=PATH)
@click.option("--reference", type=PATH, required=True, help="The float32 ONNX model.")
@click.option("--images", type=PATH, required=True, metavar="DIR", help="Images to compare on.")
@click.option("--max-drop", metavar="1%", help="Fail (exit 4) when a graph is worse than that.")
@edit_flags
@json_flag
@quiet_flag
def verify(
    engine: Path,
    reference: Path,
    images: Path,
    max_drop: str | None,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Compare what ENGINE holds with the model it was built from, on real images."""
    limit = None if max_drop is None else MaxDrop.parse(max_drop)
    with Bars(enabled=not quiet) as progress:
        found = reverify(engine, reference, images, limit, progress, edits=take_edits(flags))
    if as_json:
        print_json(found.to_json())
        return
    if quiet:
        return
    print_warnings(found.warnings)
    for name, agreement in found.agreements.items():
        print_table(f"{engine}: {name}", ("measure", "value"), agreement.to_json().items())
