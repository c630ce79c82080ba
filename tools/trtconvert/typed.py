"""The typed graph: the ONNX graph with every precision decision written in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from trtconvert.calibration.options import CalibrationReport
from trtconvert.decision import Decision, count_precisions
from trtconvert.passes.emulate_half import emulate_half


@dataclass(frozen=True)
class TypedGraph:
    """A typed graph and what goes with it.

    Attributes:
        precision: as asked for.
        model: what GPU builders take. ``int8`` is int8 with a float16 remainder.
        twin: what the CPU runs. A CPU gains nothing from float16, so the twin of ``fp16`` is the
            float32 graph; that of ``int8`` has a float32 remainder, and uint8 activations.
        twin_precision: ``fp32`` or ``int8``.
        decisions: precision and reason of each node of the clean graph.
        thresholds: absolute value that maps to 127, by tensor name; empty unless ``int8``.
        calibration: None where no image was read.
        warnings: what to tell the user.
        channel_factors: what the channels of tensors were divided by, by the first tensor of each
            group.
        flops_by_precision: operations of convolutions and matrix products per precision.
    """

    precision: str
    model: ModelProto
    twin: ModelProto
    twin_precision: str
    decisions: tuple[Decision, ...]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibration: CalibrationReport | None = None
    warnings: tuple[str, ...] = ()
    flops_by_precision: Mapping[str, int] = field(default_factory=dict)
    channel_factors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def measured(self) -> ModelProto:
        """What verification runs for ``model``, with ``optimize=False``; made anew.

        Its 16-bit roundings are written out, since ONNX Runtime drops them.
        """
        return self.model if self.precision == "fp32" else emulate_half(self.model)

    @property
    def nodes_by_precision(self) -> dict[str, int]:
        """How many nodes of the clean graph have which precision."""
        return count_precisions(self.decisions)
