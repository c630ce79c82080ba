"""``trtconvert build``: an ONNX model in, a verified engine file out."""

from __future__ import annotations

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
    verbose_flag,
)
from trtconvert.cli.progress import Bars
from trtconvert.cli.show import print_json, print_report, print_warnings
from trtconvert.convert import convert
from trtconvert.options import PRECISIONS, BuildOptions
from trtconvert.verify import MaxDrop
from visionrt.errors import UsageError


@click.command()
@click.argument("model", type=PATH, required=False)
@click.option("--onnx", type=PATH, help="MODEL, as trtexec spells it.")
@click.option(
    "-o",
    "--output",
    "--saveEngine",
    type=PATH,
    required=True,
    help="OUT.engine; OUT.plan (or .trt) is the raw plan alone, OUT.onnx the typed graph.",
)
@click.option("--precision", type=click.Choice(PRECISIONS), help="Default: auto.")
@click.option("--fp16", is_flag=True, help="--precision fp16, as trtexec spells it.")
@click.option("--int8", is_flag=True, help="--precision int8; with --fp16, auto.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="rtx, rtx:sm86,sm89, tensorrt or cpu; may be repeated. Default: rtx (where it is "
    "installed) and cpu.",
)
@calibration_flags
@click.option(
    "--calib-subset", type=click.IntRange(1), metavar="N", help="Choose N that cover all of them."
)
@click.option("--images", type=PATH, metavar="DIR", help="Images to verify on.")
@click.option(
    "--max-drop",
    metavar="1%",
    help="Raise nodes to wider precisions until no more than that is lost; fail (exit 4) where "
    "even that does not help.",
)
@click.option(
    "--keep-threshold",
    is_flag=True,
    help="Leave --confidence as it is; without, int8 gets the one that finds what FP32 finds.",
)
@recipe_flags
@shape_flags
@json_flag
@quiet_flag
@verbose_flag
def build(**flags: Any) -> None:
    """Convert MODEL to an engine file, verified against the original."""
    as_json, quiet, verbose = (flags.pop(name) for name in ("as_json", "quiet", "verbose"))
    options = options_from(flags)
    with Bars(enabled=not quiet) as progress:
        report = convert(options, progress)
    if as_json:
        print_json(report.to_json())
    elif not quiet:
        print_warnings(report.warnings)
        print_report(report, verbose=verbose)


def options_from(flags: dict[str, Any]) -> BuildOptions:
    """The options that the parsed flags ask for.

    Raises:
        UsageError: flags that exclude each other, or a missing one.
    """
    recipe, shapes = take_recipe_flags(flags), take_shape_flags(flags)
    max_drop = flags["max_drop"]
    return BuildOptions(
        model=_model(flags["model"], flags["onnx"]),
        output=flags["output"],
        precision=_precision(flags["precision"], fp16=flags["fp16"], int8=flags["int8"]),
        targets=tuple(flags["targets"]),
        recipe=recipe,
        shapes=shapes,
        calibration=take_calibration_flags(flags),
        images=flags["images"],
        max_drop=None if max_drop is None else MaxDrop.parse(max_drop),
        keep_threshold=flags["keep_threshold"],
    )


def _model(argument: Path | None, onnx: Path | None) -> Path:
    if (argument is None) == (onnx is None):
        raise UsageError(
            "one MODEL, or --onnx",
            got="neither" if argument is None else "both",
            fix="Write: trtconvert build MODEL.onnx -o OUT.engine",
        )
    model = argument or onnx
    assert model is not None
    return model


def _precision(named: str | None, *, fp16: bool, int8: bool) -> str:
    # trtexec's flags allow precisions: with both, the faster that holds is taken.
    allowed = {(True, True): "auto", (True, False): "fp16", (False, True): "int8"}.get((fp16, int8))
    if named and allowed and named != allowed:
        raise UsageError(
            "one precision", got=f"{named} and {allowed}", fix="Keep --precision, or the alias."
        )
    return named or allowed or "auto"
