"""The conversion path:

onnx model → recipe → passes → calibrate → Q/DQ → verify → build → engine file

Verification comes before the build: it compares the typed graph, which is what every builder gets,
so a model that lost too much costs no build.
"""

from __future__ import annotations

from dataclasses import asdict

from trtconvert.audited import audit_calibration, choose_images
from trtconvert.building import build_plans, chosen_targets, notes_on, tuned_twin
from trtconvert.check import refuse_known
from trtconvert.choose import choose_precision
from trtconvert.clean import clean_model
from trtconvert.edit_check import check_edits
from trtconvert.evidence import evidence_for, images_to_judge_by
from trtconvert.guess import find_recipe
from trtconvert.heap import reclaim
from trtconvert.load import load_model
from trtconvert.operating_point import keep_operating_point
from trtconvert.options import BuildOptions
from trtconvert.output import check_output, write_output
from trtconvert.progress import Progress, silent
from trtconvert.report import Report, target_reports
from trtconvert.shapes import input_ranges
from trtconvert.weights import WeightFile


def convert(options: BuildOptions, progress: Progress = silent) -> Report:
    """Convert a model and write the output; blocks until it is done.

    An interrupt at any time leaves nothing behind.

    Raises:
        VisionrtError: one subclass per exit code of the command line; see ``visionrt.errors``.
    """
    warnings: list[str] = []
    targets = chosen_targets(options, warnings)
    check_output(options)

    loaded = load_model(options.model, options.recipe.graph_edits)
    flags = options.recipe.completed(loaded.told, loaded.told_by)
    found = find_recipe(loaded.model, flags, options.shapes, images_to_judge_by(options), progress)
    recipe = found.recipe
    ranges = input_ranges(loaded.model, recipe.preprocess, options.shapes)
    clean = clean_model(
        loaded.model, ranges, keep_batch=not options.shapes.explicit, warnings=warnings
    )
    refuse_known(clean, targets)
    options, subset = choose_images(options, progress)
    file = WeightFile()
    evidence = evidence_for(loaded.model, recipe, options, warnings, file)
    evidence.check(options.allowed_drop)
    edits = check_edits(loaded.stages, recipe.preprocess, evidence.images, warnings)
    # From here on, large constants are in the file alone.
    source, clean = loaded.source, file.aside(clean)
    del loaded
    reclaim()
    audit = audit_calibration(evidence, options, progress, warnings)
    choice = choose_precision(clean, evidence, options, progress, warnings, file)
    typed = choice.typed
    recipe, agreement, transfer = keep_operating_point(
        typed, choice.agreement, evidence, options, progress
    )
    plans = build_plans(targets, typed.model, ranges, progress)
    cpu = tuned_twin(targets, typed.twin, file, options, progress, warnings)
    warnings += notes_on(typed.precision, targets)

    report = Report(
        engine=str(options.output),
        precision=typed.precision,
        targets=target_reports(targets, plans, typed.twin),
        nodes_by_precision=typed.nodes_by_precision,
        flops_by_precision=typed.flops_by_precision,
        calibration=None if typed.calibration is None else asdict(typed.calibration),
        verification=agreement.to_json(),
        search=None if choice.search is None else choice.search.to_json(),
        recipe=recipe,
        reasons=found.reasons,
        warnings=tuple(warnings),
        edits=edits,
        audit=None if audit is None else audit.to_json(),
        subset=None if subset is None else subset.to_json(),
        confidence=None if transfer is None else transfer.to_json(),
    )
    write_output(options, source, typed, ranges, targets, plans, report, cpu)
    return report
