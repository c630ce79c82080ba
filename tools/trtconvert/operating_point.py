"""Keeps the precision and recall of the float32 model at the threshold that the user knows."""

from __future__ import annotations

import dataclasses
import json

from trtconvert.evidence import Evidence
from trtconvert.options import BuildOptions
from trtconvert.output import REPORT
from trtconvert.precision import TypedGraph
from trtconvert.progress import Progress
from trtconvert.transfer import Transfer, measure_transfer
from visionrt.engine_file import EngineFile
from visionrt.metrics import Agreement
from visionrt.recipe import Recipe


def keep_operating_point(
    typed: TypedGraph,
    agreement: Agreement,
    evidence: Evidence,
    options: BuildOptions,
    progress: Progress,
) -> tuple[Recipe, Agreement, Transfer | None]:
    """The recipe with the threshold for the typed graph, and the agreement at that threshold.

    Only for detectors in int8 whose CPU twin is int8, too: plans and twin share one recipe, so the
    threshold must fit both. The twin of fp16 is the float32 model, whose threshold is right as it
    is. A classifier ranks its classes whatever the threshold.

    Returns:
        Recipe, agreement, and the transfer, which is None where none was looked for.
    """
    recipe = evidence.recipe
    is_int8 = typed.precision == typed.twin_precision == "int8"
    if options.keep_threshold or not is_int8 or recipe.task != "detect" or not evidence.images:
        return recipe, agreement, None
    measured = evidence.kept(typed.measured)
    transfer = measure_transfer(evidence.reference, measured, recipe, evidence.images, progress)
    chosen = transfer.transferred
    if chosen == recipe.confidence:
        return recipe, agreement, transfer
    again = evidence.compare(measured, progress, confidence=chosen)
    twin = evidence.compare(typed.twin, progress, optimize=True, confidence=chosen)
    details = {**again.details, "twin_agreement": twin.agreement}
    again = dataclasses.replace(again, details=details, warnings=agreement.warnings)
    return dataclasses.replace(recipe, confidence=chosen), again, transfer


def fp32_recipe(file: EngineFile) -> Recipe:
    """The recipe of an engine file with the threshold that its float32 model has."""
    recipe = file.manifest.recipe
    if REPORT not in file.manifest.members:
        return recipe
    transfer = json.loads(file.read(REPORT)).get("confidence")
    return recipe if transfer is None else dataclasses.replace(recipe, confidence=transfer["fp32"])
