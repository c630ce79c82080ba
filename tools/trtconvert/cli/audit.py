"""``trtconvert audit``: what is wrong with a set of calibration images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trtconvert.calibration.audit import Audit, audit, spec_findings
from trtconvert.calibration.reader import ImageReader
from trtconvert.calibration.subset import covering_subset
from trtconvert.cli.arguments import (
    PATH,
    json_flag,
    quiet_flag,
    recipe_flags,
    shape_flags,
    take_recipe_flags,
    take_shape_flags,
)
from trtconvert.cli.progress import Bars
from trtconvert.cli.show import print_json, print_table
from trtconvert.guess import recipe_for
from trtconvert.load import load_model


@click.command("audit", short_help="Say what is wrong with calibration images or feeding.")
@click.argument("model", type=PATH)
@click.option("--calib", type=PATH, required=True, metavar="DIR", help="Images to calibrate on.")
@click.option("--calib-images", type=click.IntRange(1), metavar="N", help="How many of them.")
@click.option(
    "--calib-subset", type=click.IntRange(1), metavar="N", help="Name N that cover all of them."
)
@click.option("--images", type=PATH, metavar="DIR", help="Images to verify on: they should differ.")
@click.option("--ranges", type=PATH, metavar="FILE", help="Ranges that should fit the spec.")
@click.option("--engine", type=PATH, metavar="FILE", help="Engine file that should fit the spec.")
@recipe_flags
@shape_flags
@json_flag
@quiet_flag
def audit_command(**flags: Any) -> None:
    """Say what is wrong with the calibration images for MODEL, or with how they are read.

    Exits with 0 whatever is found.
    """
    as_json, quiet = flags.pop("as_json"), flags.pop("quiet")
    model: Path = flags["model"]
    given = take_recipe_flags(flags)
    loaded = load_model(model, given.graph_edits)
    given = given.completed(loaded.told, loaded.told_by)
    recipe, _ = recipe_for(loaded.model, given, take_shape_flags(flags))
    spec = recipe.preprocess
    calibration = ImageReader(flags["calib"], spec, count=flags["calib_images"])
    images = None if flags["images"] is None else ImageReader(flags["images"], spec)
    differing = spec_findings(spec, ranges=flags["ranges"], engine=flags["engine"])
    with Bars(enabled=not quiet) as progress:
        data = loaded.model.SerializeToString()
        made = audit(data, recipe, calibration, progress, images=images)
        subset = None
        if flags["calib_subset"] is not None:
            subset = covering_subset(flags["calib"], flags["calib_subset"], progress)
    made = Audit(made.images, (*differing, *made.findings))
    if as_json:
        chosen = {} if subset is None else {"subset": subset.to_json()}
        print_json({"model": str(model), **made.to_json(), **chosen})
        return
    if quiet:
        return
    rows = [(f.code, f.message, len(f.files) or "all") for f in made.findings]
    title = f"{flags['calib']}: {made.images} images"
    print_table(title, ("finding", "what", "files"), rows or [("none", "nothing found", "")])
    if subset is not None:
        print_table(subset.how, ("image",), [(str(path),) for path in subset.files])
