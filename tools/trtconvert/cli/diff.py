"""``trtconvert diff``: what differs between the answers of two engines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from trtconvert.cli.arguments import PATH, SHARE, json_flag, quiet_flag
from trtconvert.cli.progress import Bars
from trtconvert.cli.show import print_json, print_table, print_warnings
from trtconvert.diff.change import Row
from trtconvert.diff.compare import WORST, DiffOptions, DiffReport
from trtconvert.diff.compare import diff as compare
from trtconvert.verify import MaxDrop, enforce
from visionrt.errors import AccuracyError

_MOST_ROWS = 30


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--data", type=PATH, required=True, metavar="DIR", help="Images to compare on.")
@click.option(
    "--confidence",
    type=SHARE,
    metavar="P",
    help="Score threshold of both. Default: their recipes'.",
)
@click.option(
    "--worst",
    type=click.IntRange(0),
    default=WORST,
    show_default=True,
    metavar="N",
    help="How many of the images that differ the most to list.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="DIR",
    help="Write report.json and pictures of the worst images, A beside B, here.",
)
@click.option("--typed", is_flag=True, help="Compare the typed graphs, as a GPU rounds them.")
@click.option("--max-drop", metavar="1%", help="Fail (exit 4) when B is worse than that.")
@json_flag
@quiet_flag
def diff(**flags: Any) -> None:
    """Compare the answers of B with those of A, image by image.

    A and B are engine files, of which the CPU twins run; one of them may be an ONNX model.
    """
    as_json, quiet, text = (flags.pop(name) for name in ("as_json", "quiet", "max_drop"))
    limit = None if text is None else MaxDrop.parse(text)
    with Bars(enabled=not quiet) as progress:
        report = compare(DiffOptions(**flags, max_drop=limit), progress)
    failure = None if limit is None else _failure(report, limit)
    if as_json:
        error = {"error": str(failure), "exit_code": failure.exit_code} if failure else {}
        print_json({**report.to_json(), **error})
    elif not quiet:
        print_warnings(report.warnings)
        show(report)
        if flags["output"] is not None:
            click.echo(f"report: {flags['output']}")
    if failure is not None:
        # Not raised: what differs has been printed, and --json prints one object.
        sys.stderr.write(f"error: {' '.join(str(failure).split())}\n")
        click.get_current_context().exit(failure.exit_code)


def _failure(report: DiffReport, limit: MaxDrop) -> AccuracyError | None:
    try:
        enforce(report.agreement, limit, reference=report.a)
    except AccuracyError as error:
        return error
    return None


def show(report: DiffReport) -> None:
    """Print a report as tables, what differs the most first."""
    title = f"A: {report.a} ({report.a_graph})\nB: {report.b} ({report.b_graph})"
    print_table(title, ("measure", "value"), report.to_json()["agreement"].items())
    rows = sorted(report.classes, key=_difference, reverse=True)
    _print_rows("keypoints" if report.task == "keypoints" else "classes", rows)
    _print_rows("flips", report.flips)
    worst = [(Path(image.image).name, image.reason) for image in report.worst]
    if worst:
        print_table("images that differ the most", ("image", "A → B"), worst)


def _difference(row: Row) -> float:
    """How much a row of the table differs, to show such rows first."""
    if "iou" in row:
        return 1 - float(row["iou"])
    if "moved" in row:
        return float(row["lost"] + row["new"] + row["moved"])
    agreed = row["matched"] if "matched" in row else row["same"]
    return float(row["reference"] + row["candidate"] - 2 * agreed)


def _print_rows(title: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    cells = [["–" if value is None else value for value in row.values()] for row in rows]
    print_table(title, [key.replace("_", " ") for key in rows[0]], cells[:_MOST_ROWS])
    if len(rows) > _MOST_ROWS:
        click.echo(f"and {len(rows) - _MOST_ROWS} more; --json has all of them")
