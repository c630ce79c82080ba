"""Chooses the precision: types the graph, raises what must be, and takes the fastest that holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from onnx import ModelProto

from trtconvert.calibration.holdout import split_for_tuning
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.reader import ImageReader
from trtconvert.evidence import Evidence
from trtconvert.options import BuildOptions
from trtconvert.precision import TypedGraph, typer_for
from trtconvert.progress import Progress
from trtconvert.search.raising import Search, SearchReport
from trtconvert.twin import with_faster_twin
from trtconvert.typers import Typer
from trtconvert.verify import MaxDrop, enforce
from trtconvert.weights import WeightFile
from visionrt.errors import AccuracyError, ModelError
from visionrt.metrics import Agreement


@dataclass(frozen=True)
class Choice:
    """The typed graph that was taken.

    Attributes:
        agreement: of it with the original model.
        search: what was raised and why; None where no drop was to be kept to.
    """

    typed: TypedGraph
    agreement: Agreement
    search: SearchReport | None = None


def choose_precision(
    clean: ModelProto,
    evidence: Evidence,
    options: BuildOptions,
    progress: Progress,
    warnings: list[str],
    file: WeightFile | None = None,
) -> Choice:
    """The typed graph, and how well it agrees with the original model.

    Args:
        clean: the float32 graph to write precisions into.
        evidence: the original model and images.
        options: ``auto`` tries int8 (with calibration images), fp16 and fp32 in this order.
        progress: told of calibration and verification.
        warnings: what to tell the user is appended here.
        file: where ``clean`` keeps its large constants, if it does.

    Raises:
        AccuracyError: the named precision, or for ``auto`` every one, loses more than is allowed.
        UsageError: a limit for a metric that this task does not have.
        InputDataError: no usable images.
        ModelError: a graph that does not run or cannot be typed.
    """
    calibration, tuning = _apart(evidence, options)
    if options.images is None:
        # Not on images that ranges were fitted to, where there are others.
        evidence = tuning
    chooser = _Chooser(
        clean, file, evidence, tuning, calibration, options.allowed_drop, progress, warnings
    )
    *faster, last = _candidates(options)
    for precision in faster:
        try:
            return chooser.attempt(precision)
        except (AccuracyError, ModelError) as error:
            warnings.append(f"{precision} was not taken: {error.got}")
    return chooser.attempt(last)


def _apart(evidence: Evidence, options: BuildOptions) -> tuple[CalibrationOptions | None, Evidence]:
    """Images to calibrate on, and evidence on others to tune on, where there is to be tuning."""
    calibration = options.calibration
    if calibration is None:
        # Whatever images there are show what float16 would not hold.
        ranges = CalibrationOptions(evidence.images) if evidence.images else None
        return ranges, evidence
    if options.allowed_drop is None or not calibration.images:
        return calibration, evidence
    reader = ImageReader(calibration.images, evidence.recipe.preprocess, count=calibration.count)
    ranging, tuning = split_for_tuning(reader.files)
    return (
        dataclasses.replace(calibration, images=ranging, count=None),
        dataclasses.replace(evidence, images=tuning, labels={}),
    )


@dataclass(frozen=True)
class _Chooser:
    clean: ModelProto
    file: WeightFile | None
    evidence: Evidence
    tuning: Evidence
    calibration: CalibrationOptions | None
    allowed_drop: MaxDrop | None
    progress: Progress
    warnings: list[str]

    def attempt(self, precision: str) -> Choice:
        max_drop = self.allowed_drop
        typer = self._typer(precision)
        report = None
        if max_drop is None or precision == "fp32":
            typed = typer.typed()
            agreement = self.evidence.compare(typed.measured, self.progress)
            if max_drop is not None:
                enforce(agreement, max_drop)
        else:
            search = Search(typer, self.tuning, max_drop, self.progress)
            search.run()
            agreement = self._held(search, max_drop)
            typed, report = search.typed, search.report()
        if typed.twin_precision != "fp32":
            # The CPU's integer kernels round in places of their own. Told even where the twin that
            # is stored is float32: it is what a CPU with faster ones would run.
            twin = self.evidence.compare(typed.twin, self.progress, optimize=True)
            details = {**agreement.details, "twin_agreement": twin.agreement}
            agreement = dataclasses.replace(agreement, details=details)
        if typed.twin_precision != "fp32":
            typed = with_faster_twin(typed, self._whole(), self.warnings)
        self.warnings.extend(dict.fromkeys([*typed.warnings, *agreement.warnings]))
        return Choice(typed, agreement, report)

    def _typer(self, precision: str) -> Typer:
        recipe, calibration = self.evidence.recipe, self.calibration
        if precision == "int8":
            return typer_for(self.clean, recipe, precision, calibration, self.progress, self.file)
        return typer_for(self._whole(), recipe, precision, calibration, self.progress)

    def _whole(self) -> ModelProto:
        if self.file is None:
            return self.clean
        out = ModelProto()
        out.CopyFrom(self.clean)
        return self.file.whole(out)

    def _held(self, search: Search, max_drop: MaxDrop) -> Agreement:
        """The agreement on the images of ``evidence``, with more raised until it holds there."""
        steps = 0
        while True:
            if self.evidence is self.tuning:
                agreement = search.agreement
            else:
                agreement = self.evidence.compare(search.typed.measured, self.progress)
            try:
                enforce(agreement, max_drop)
            except AccuracyError:
                if not search.widen():
                    raise
                steps += 1
                continue
            if steps:
                self.warnings.append(
                    f"what held on the tuning images did not on the {agreement.images} to verify "
                    f"on, so more was raised, {steps} times: these images had a say in the result"
                )
            return agreement


def _candidates(options: BuildOptions) -> Sequence[str]:
    if options.precision != "auto":
        return (options.precision,)
    return ("int8", "fp16", "fp32") if options.calibration is not None else ("fp16", "fp32")
