"""What a conversion is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trtconvert.calibration.options import CalibrationOptions
from trtconvert.recipe_flags import RecipeFlags
from trtconvert.shapes import ShapeFlags
from trtconvert.verify import MaxDrop
from visionrt.errors import UsageError

PRECISIONS = ("auto", "int8", "fp16", "bf16", "fp32")
# What the suffix of the output asks for.
OUTPUT_KINDS = {".engine": "engine", ".plan": "plan", ".trt": "plan", ".onnx": "onnx"}
# The most that ``auto`` gives up for speed unless told otherwise.
AUTO_MAX_DROP = MaxDrop(0.01)


@dataclass(frozen=True)
class BuildOptions:
    """What ``trtconvert build`` takes.

    Attributes:
        model: the ONNX file.
        output: an engine file (``.engine``), one raw plan (``.plan``, ``.trt``) or the typed graph
            (``.onnx``).
        precision: ``auto`` takes the fastest of int8 (where there are calibration images), fp16
            and fp32 that loses at most ``max_drop``.
        targets: as ``--target`` takes them; none means ``cpu``, and ``rtx`` where it is installed.
        recipe: what is known of the model.
        shapes: of its inputs.
        calibration: needed by int8.
        images: a folder to verify on; the calibration images where it is None.
        max_drop: share of the reference's answers that may be lost; None accepts any loss, except
            that ``auto`` then uses 1 %.
        keep_threshold: leave the recipe's score threshold as it is for int8, too.
    """

    model: Path
    output: Path
    precision: str = "auto"
    targets: tuple[str, ...] = ()
    recipe: RecipeFlags = field(default_factory=RecipeFlags)
    shapes: ShapeFlags = field(default_factory=ShapeFlags)
    calibration: CalibrationOptions | None = None
    images: Path | None = None
    max_drop: MaxDrop | None = None
    keep_threshold: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"a precision: {' | '.join(PRECISIONS)}",
                got=self.precision,
                fix="Name one of them.",
            )
        if self.output.suffix not in OUTPUT_KINDS:
            raise UsageError(
                f"an output that ends in {' | '.join(OUTPUT_KINDS)}",
                got=str(self.output),
                fix="Name it NAME.engine; .plan gives the raw plan, .onnx the typed graph.",
            )
        if self.precision == "int8" and self.calibration is None:
            raise UsageError(
                "images to calibrate int8 with",
                got="none",
                fix="Add --calib FOLDER with some 50 typical images, or --ranges FILE.",
            )

    @property
    def allowed_drop(self) -> MaxDrop | None:
        """``max_drop``, with the default of ``auto``."""
        return (
            AUTO_MAX_DROP if self.max_drop is None and self.precision == "auto" else self.max_drop
        )

    @property
    def kind(self) -> str:
        """``engine``, ``plan`` or ``onnx``."""
        return OUTPUT_KINDS[self.output.suffix]
