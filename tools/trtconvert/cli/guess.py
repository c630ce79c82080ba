"""``trtconvert guess``: the recipe a model would get, with a reason per field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

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
from trtconvert.cli.show import print_json, print_reasons, print_table
from trtconvert.evidence import image_source
from trtconvert.guess import find_recipe
from trtconvert.load import load_model
from visionrt.atomic import write_bytes

_SHOWN = 8


@click.command()
@click.argument("model", type=PATH)
@click.option(
    "--images",
    type=PATH,
    metavar="DIR",
    help="Images to find the preprocess spec by; best with a labels.csv in or beside the folder.",
)
@click.option("-o", "--output", type=PATH, metavar="FILE", help="Write it, for build --recipe.")
@recipe_flags
@shape_flags
@json_flag
@quiet_flag
def guess(
    model: Path, images: Path | None, output: Path | None, as_json: bool, quiet: bool, **flags: Any
) -> None:
    """Print the recipe of MODEL, and where each field comes from.

    Exits with 2 and lists the choices where the model leaves one.
    """
    recipe, shapes = take_recipe_flags(flags), take_shape_flags(flags)
    loaded = load_model(model, recipe.graph_edits)
    recipe = recipe.completed(loaded.told, loaded.told_by)
    with Bars(enabled=not quiet) as progress:
        found = find_recipe(loaded.model, recipe, shapes, image_source(images), progress)
    if output is not None:
        text = json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_bytes(output, text.encode())
    if as_json:
        print_json(found.to_json())
        return
    if quiet:
        return
    print_reasons(found.recipe.to_json(), found.reasons, found.confidence)
    if found.ranking:
        rows = [(key, f"{score:.3f}") for key, score in found.ranking[:_SHOWN]]
        print_table("preprocess specs that were tried", ("spec", "score"), rows)
