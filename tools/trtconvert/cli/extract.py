"""``trtconvert extract``: a plan, a graph, the manifest or the report out of an engine file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from trtconvert.cli.arguments import PATH
from trtconvert.extract import extract as extract_bytes
from trtconvert.extract import extract_plan
from visionrt.atomic import write_bytes
from visionrt.engine_file import EngineFile
from visionrt.errors import UsageError

_TEXTS = ("manifest", "report", "ranges")


@click.command()
@click.argument("engine", type=PATH)
@click.option("--plan", metavar="TARGET", help="The raw plan of a target, e.g. rtx:sm86.")
@click.option("--onnx", is_flag=True, help="The graph that the CPU twin runs.")
@click.option("--typed", is_flag=True, help="The precision-typed graph.")
@click.option("--manifest", is_flag=True, help="The manifest, as JSON.")
@click.option("--report", is_flag=True, help="The report of the build, as JSON.")
@click.option("--ranges", is_flag=True, help="Calibrated ranges, for build --ranges.")
@click.option("-o", "--output", type=PATH, help="Where to write it; JSON may go to stdout.")
def extract(engine: Path, plan: str | None, output: Path | None, **flags: bool) -> None:
    """Write one thing that ENGINE holds to a file."""
    asked = [name for name, given in flags.items() if given]
    if len(asked) + (plan is not None) != 1:
        raise UsageError(
            "one of --plan TARGET, --onnx, --typed, --manifest, --report, --ranges",
            got="several" if asked else "none",
            fix="Name one thing to extract.",
        )
    if output is None and (plan is not None or asked[0] not in _TEXTS):
        raise UsageError("-o FILE", got="none", fix="Name the file to write.")
    with EngineFile(engine) as file:
        data = extract_plan(file, plan) if plan is not None else extract_bytes(file, asked[0])
    if output is None:
        sys.stdout.write(data.decode())
    else:
        write_bytes(output, data)
