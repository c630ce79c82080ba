"""What a conversion did, in numbers: printed, written as JSON, and stored in the engine file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

from trtconvert.building import CPU
from trtconvert.targets.base import BuiltPlan, Target
from visionrt.recipe import Recipe


@dataclass(frozen=True)
class TargetReport:
    """One thing that was built. ``plan_bytes`` of the CPU target is the size of its graph."""

    backend: str
    target: str
    plan_bytes: int
    build_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON types."""
        return dict(vars(self))


def target_reports(
    targets: Sequence[Target], plans: Sequence[BuiltPlan], twin: ModelProto
) -> tuple[TargetReport, ...]:
    """One entry per target, in order; the plans are those of the GPU targets, in order."""
    remaining = iter(plans)
    entries = []
    for target in targets:
        if target.backend == CPU:
            entries.append(TargetReport(CPU, target.name, twin.ByteSize(), 0.0))
            continue
        plan = next(remaining)
        info = plan.info
        entries.append(TargetReport(info.backend, info.target, len(plan.data), info.build_seconds))
    return tuple(entries)


@dataclass(frozen=True)
class Report:
    """The outcome of a conversion.

    Attributes:
        engine: path of the file that was written.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        targets: in the order given.
        nodes_by_precision: how many nodes of the typed graph compute in each precision.
        calibration: images, seconds, method and peak_rss_bytes; None without int8.
        verification: metric, images, agreement, cosine and what else the metric has.
        flops_by_precision: operations of convolutions and matrix products in each precision.
        search: which nodes were raised so that the answers hold; None without ``--max-drop``.
        recipe: what the model was taken to be. Not part of the JSON: the manifest holds it.
        reasons: why, by recipe field.
        warnings: sentences for people.
        edits: what was checked of each edit of the graph; see ``edit_check.py``.
        audit: of the calibration images: how many there are, and findings; None without any.
        subset: which images a covering subset took, and how; None where none was asked for.
        confidence: the threshold of float32 and the one that was transferred to int8, with the
            reason; None where it was not looked for.
    """

    engine: str
    precision: str
    targets: tuple[TargetReport, ...]
    nodes_by_precision: Mapping[str, int]
    calibration: Mapping[str, Any] | None
    verification: Mapping[str, Any]
    recipe: Recipe
    reasons: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    flops_by_precision: Mapping[str, int] = field(default_factory=dict)
    search: Mapping[str, Any] | None = None
    edits: tuple[str, ...] = ()
    audit: Mapping[str, Any] | None = None
    subset: Mapping[str, Any] | None = None
    confidence: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints: ``edits``, ``audit``, ``calibration_subset`` and
        ``confidence`` only where there is one.
        """
        optional = {
            "audit": self.audit,
            "calibration_subset": self.subset,
            "confidence": self.confidence,
        }
        return {
            "engine": self.engine,
            "precision": self.precision,
            "targets": [target.to_json() for target in self.targets],
            "nodes_by_precision": dict(self.nodes_by_precision),
            "flops_by_precision": dict(self.flops_by_precision),
            "calibration": None if self.calibration is None else dict(self.calibration),
            "verification": dict(self.verification),
            "search": None if self.search is None else dict(self.search),
            "warnings": list(self.warnings),
            **({"edits": list(self.edits)} if self.edits else {}),
            **{key: dict(value) for key, value in optional.items() if value is not None},
        }

    def to_bytes(self) -> bytes:
        """The JSON as stored in the engine file."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False).encode()
