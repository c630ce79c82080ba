"""``trtconvert guess``: the recipe a model would get, with a reason per field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from trtconvert.cli.arguments import (
    PATH,
    json_flag,
    recipe_flags,
    shape_flags,
    take_recipe_flags,
    take_shape_flags,
)
from trtconvert.cli.show import print_json, print_reasons
from trtconvert.guess import recipe_for
from trtconvert.load import load_model


@click.command()
@click.argument("model", type=PATH)
@recipe_flags
@shape_flags
@json_flag
def guess(model: Path, as_json: bool, **flags: Any) -> None:
    """Print the recipe of MODEL, and where each field comes from."""
    loaded = load_model(model)
    recipe, reasons = recipe_for(loaded.model, take_recipe_flags(flags), take_shape_flags(flags))
    if as_json:
        print_json({"recipe": recipe.to_json(), "reasons": reasons})
    else:
        print_reasons(recipe.to_json(), reasons)
