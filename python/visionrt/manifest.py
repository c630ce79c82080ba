"""The manifest of an engine file: what is inside, for what, and with which hashes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from visionrt.cpu_settings import CpuChoice
from visionrt.errors import EngineFileError, UsageError
from visionrt.recipe import Recipe

FORMAT = "visionrt-engine"
FORMAT_VERSION = 1

Shape: TypeAlias = tuple[int, ...]
ShapeLimits: TypeAlias = tuple[Shape, Shape, Shape]  # smallest, most common, largest


@dataclass(frozen=True)
class TensorInfo:
    """Name, NumPy dtype name and shape of a graph input or output; a str is a symbolic size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class PlanInfo:
    """A plan inside the file.

    Attributes:
        member: its name in the archive.
        backend: ``tensorrt_rtx`` or ``tensorrt``.
        target: as given to ``--target``, e.g. ``rtx:sm86``.
        library_version: of the builder, e.g. ``1.7.1.116``.
        compute_capabilities: SM numbers it runs on, e.g. ``("86",)``.
        build_seconds: wall time of the build.
    """

    member: str
    backend: str
    target: str
    library_version: str
    compute_capabilities: tuple[str, ...]
    build_seconds: float

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PlanInfo:
        """Of ``dataclasses.asdict``, with lists for tuples. Raises KeyError or TypeError."""
        fields = dict(value)
        fields["compute_capabilities"] = tuple(fields["compute_capabilities"])
        return cls(**fields)


@dataclass(frozen=True)
class MemberInfo:
    """Size and SHA-256 (hex) of a member."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime must know before it reads a large member.

    Attributes:
        name: of the model, for people.
        created_by: tool and version.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``: what plans and typed graph hold.
        twin_precision: what ``twin`` holds.
        recipe: task, head, labels, preprocess spec and thresholds.
        inputs, outputs: of the graph.
        source: ``{"file": name, "sha256": hex}`` of the ONNX model that was converted.
        twin: member that the CPU runs, or None when the file has no CPU twin.
        typed_graph: member with the precision-typed graph; equals ``twin`` when they are the same.
        plans: the GPU plans.
        shapes: of each input, those that plans are built for; empty in files that do not say.
        members: every other member of the archive, by name.
        cpu: how the twin runs fastest on the CPU it was tuned on; None where it was not.
    """

    name: str
    created_by: str
    precision: str
    twin_precision: str
    recipe: Recipe
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    source: Mapping[str, str]
    twin: str | None
    typed_graph: str | None
    plans: tuple[PlanInfo, ...] = ()
    shapes: Mapping[str, ShapeLimits] = field(default_factory=dict)
    members: Mapping[str, MemberInfo] = field(default_factory=dict)
    cpu: CpuChoice | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON form that is stored, with format name, version and the spec's hash."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "created_by": self.created_by,
            "precision": self.precision,
            "twin_precision": self.twin_precision,
            "recipe": self.recipe.to_json(),
            "preprocess_sha256": self.recipe.preprocess.digest,
            "inputs": [dataclasses.asdict(t) for t in self.inputs],
            "outputs": [dataclasses.asdict(t) for t in self.outputs],
            "source": dict(self.source),
            "twin": self.twin,
            "typed_graph": self.typed_graph,
            "plans": [dataclasses.asdict(p) for p in self.plans],
            "cpu": None if self.cpu is None else self.cpu.to_json(),
            "shapes": {name: [list(s) for s in limits] for name, limits in self.shapes.items()},
            "members": {k: dataclasses.asdict(v) for k, v in sorted(self.members.items())},
        }

    @classmethod
    def from_json(cls, value: object, *, where: str) -> Manifest:
        """Read the stored form; ``where`` names the file in errors.

        Raises:
            EngineFileError: another format, a newer version, a missing or ill-typed field, or a
                preprocess spec that does not match its hash.
        """
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise EngineFileError(
                f"a {FORMAT} manifest in {where}",
                got="something else",
                fix="Build the file with trtconvert.",
            )
        version = value.get("format_version")
        if version != FORMAT_VERSION:
            raise EngineFileError(
                f"engine format version {FORMAT_VERSION} in {where}",
                got=f"version {version}",
                fix="Upgrade visionrt, or build the file again with this version's trtconvert.",
            )
        try:
            recipe = Recipe.from_json(value["recipe"])
            out = cls(
                name=str(value["name"]),
                created_by=str(value["created_by"]),
                precision=str(value["precision"]),
                twin_precision=str(value["twin_precision"]),
                recipe=recipe,
                inputs=tuple(_tensor(t) for t in value["inputs"]),
                outputs=tuple(_tensor(t) for t in value["outputs"]),
                source=dict(value["source"]),
                twin=value["twin"],
                typed_graph=value["typed_graph"],
                plans=tuple(PlanInfo.from_json(p) for p in value["plans"]),
                shapes={k: _limits(v) for k, v in value.get("shapes", {}).items()},
                members={k: MemberInfo(**v) for k, v in value["members"].items()},
                cpu=CpuChoice.from_json(value["cpu"]) if value.get("cpu") is not None else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise EngineFileError(
                f"a complete manifest in {where}",
                got=f"{type(error).__name__}: {error}",
                fix="The file is damaged: build it again.",
            ) from error
        if value.get("preprocess_sha256") != recipe.preprocess.digest:
            raise EngineFileError(
                f"the preprocess spec of {where} to match its stored hash",
                got="a different spec",
                fix="The file was edited: build it again.",
            )
        return out


def _tensor(value: Mapping[str, Any]) -> TensorInfo:
    return TensorInfo(value["name"], value["dtype"], tuple(value["shape"]))


def _limits(value: Any) -> ShapeLimits:
    low, common, high = (tuple(int(size) for size in shape) for shape in value)
    return low, common, high
