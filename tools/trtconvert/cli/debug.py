"""``trtconvert debug``: where along a graph FP16 or INT8 loses the signal."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from trtconvert.cli.arguments import (
    PATH,
    calibration_flags,
    json_flag,
    quiet_flag,
    recipe_flags,
    shape_flags,
    take_calibration_flags,
    take_recipe_flags,
    take_shape_flags,
)
from trtconvert.cli.progress import Bars
from trtconvert.cli.show import print_json, print_table, print_warnings
from trtconvert.debug.layers import SORTS, LayerFigures, sort_layers
from trtconvert.debug.page import html_page
from trtconvert.debug.report import IMAGES, DebugOptions, DebugReport
from trtconvert.debug.report import debug as measure
from visionrt.atomic import write_bytes

_ROWS = 20


@click.command(short_help="Show the error of each node in FP16 or INT8.")
@click.argument("model", type=PATH)
@click.option("--precision", type=click.Choice(("fp16", "bf16", "int8")), required=True)
@click.option("--images", type=PATH, required=True, metavar="DIR", help="Images to measure on.")
@click.option(
    "-n",
    "count",
    type=click.IntRange(1),
    default=IMAGES,
    show_default=True,
    metavar="N",
    help="How many of them.",
)
@calibration_flags
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="snr",
    show_default=True,
    help="Worst first by signal to noise, by what the node itself loses, or by the largest error.",
)
@click.option("--top", type=click.IntRange(1), metavar="N", help="Show the first N only.")
@click.option("--html", type=PATH, metavar="FILE", help="Write a page with a plot and the table.")
@recipe_flags
@shape_flags
@json_flag
@quiet_flag
def debug(html: Path | None, sort: str, top: int | None, **flags: Any) -> None:
    """Show for each node of MODEL how far its output is from float32 once it is FP16 or INT8.

    The graph is typed as `build` does it and run beside the float32 graph with every rounding
    emulated. The error at a node holds what its inputs brought.
    """
    as_json, quiet = flags.pop("as_json"), flags.pop("quiet")
    options = DebugOptions(
        recipe=take_recipe_flags(flags),
        shapes=take_shape_flags(flags),
        calibration=take_calibration_flags(flags),
        **flags,
    )
    with Bars(enabled=not quiet) as progress:
        report = measure(options, progress)
    layers = sort_layers(report.layers, sort)
    if html is not None:
        write_bytes(html, html_page(report, layers).encode())
    if as_json:
        print_json(dataclasses.replace(report, layers=layers[:top]).to_json())
    elif not quiet:
        print_warnings(report.warnings)
        _show(report, layers[: top or _ROWS])
        if html is not None:
            click.echo(f"page: {html}")


def _show(report: DebugReport, layers: list[LayerFigures]) -> None:
    columns = ("#", "node", "operator", "precision", "SNR dB", "loss dB", "cosine")
    title = f"{report.model}: {report.precision}, {len(layers)} of {len(report.layers)} nodes"
    print_table(
        title, (*columns, "max error", "range", "reason"), [_row(layer) for layer in layers]
    )
    unmapped = report.unmapped
    if unmapped:
        print_table("not mapped", ("node", "why"), [(layer.node, layer.note) for layer in unmapped])


def _row(layer: LayerFigures) -> tuple[object, ...]:
    snr = f"{layer.snr_db:.1f}" if layer.snr_db is not None else layer.status
    loss = "" if layer.loss_db is None else f"{layer.loss_db:.1f}"
    cosine = "" if layer.cosine is None else f"{layer.cosine:.6f}"
    error = "" if layer.max_error is None else layer.max_error
    known = layer.low is not None and layer.high is not None
    span = f"{layer.low:.4g} … {layer.high:.4g}" if known else ""
    head = (layer.order, layer.node, layer.op_type, layer.precision)
    return (*head, snr, loss, cosine, error, span, layer.reason)
