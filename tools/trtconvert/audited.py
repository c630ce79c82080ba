"""Chooses and audits a conversion's calibration images, before anything is measured on them."""

from __future__ import annotations

import dataclasses

from trtconvert.calibration.audit import Audit, audit, spec_findings
from trtconvert.calibration.reader import ImageReader
from trtconvert.calibration.subset import Subset, covering_subset
from trtconvert.evidence import Evidence
from trtconvert.options import BuildOptions
from trtconvert.progress import Progress


def choose_images(options: BuildOptions, progress: Progress) -> tuple[BuildOptions, Subset | None]:
    """The options, their calibration images replaced by a covering subset where one is asked for.

    Raises:
        InputDataError: no images, or fewer than asked for.
    """
    calibration = options.calibration
    if calibration is None or calibration.subset is None or not calibration.images:
        return options, None
    subset = covering_subset(calibration.images, calibration.subset, progress)
    calibration = dataclasses.replace(
        calibration, images=subset.files, count=len(subset.files), subset=None
    )
    return dataclasses.replace(options, calibration=calibration), subset


def audit_calibration(
    evidence: Evidence, options: BuildOptions, progress: Progress, warnings: list[str]
) -> Audit | None:
    """Audit the calibration images and ranges; None where nothing is calibrated.

    Raises:
        InputDataError: no images, or fewer than asked for.
        UsageError: a broken table of ranges.
    """
    calibration, spec = options.calibration, evidence.recipe.preprocess
    if calibration is None:
        return None
    made = Audit(0, tuple(spec_findings(spec, ranges=calibration.ranges)))
    if calibration.images:
        reader = ImageReader(calibration.images, spec, count=calibration.count)
        others = None if options.images is None else ImageReader(options.images, spec)
        on_images = audit(evidence.reference, evidence.recipe, reader, progress, images=others)
        made = Audit(on_images.images, (*made.findings, *on_images.findings))
    # The reader names each file that it skips by itself.
    warnings += [f.message for f in made.findings if f.code != "unreadable"]
    return made
