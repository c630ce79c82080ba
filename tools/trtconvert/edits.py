"""What may be changed in a graph before it is converted: where it ends, and its input size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx import ModelProto

from visionrt.errors import UsageError

NMS_CHOICES = ("inside", "outside")


@dataclass(frozen=True)
class GraphEdits:
    """What is changed in a graph before all else.

    Attributes:
        outputs: names of tensors that become its outputs; none leaves them as they are.
        nms: ``outside`` cuts an NMS off, and what follows it; ``inside`` leaves it.
        input_size: height and width that the image input is given instead of its own.
        channels_first: whether a channels-last input loses the transpose behind it.
        free_batch: whether a graph for one image is made to take batches, where it can.
    """

    outputs: tuple[str, ...] = ()
    nms: str = "inside"
    input_size: tuple[int, int] | None = None
    channels_first: bool = True
    free_batch: bool = False

    def __post_init__(self) -> None:
        if self.nms not in NMS_CHOICES:
            raise UsageError(
                f"--nms {' | '.join(NMS_CHOICES)}", got=self.nms, fix="Name one of them."
            )
        if self.outputs and self.nms == "outside":
            raise UsageError(
                "--outputs or --nms outside", got="both", fix="Keep one: each says where to cut."
            )


@dataclass(frozen=True)
class EditStage:
    """An edit that changed a graph, kept so that a build can check it.

    Attributes:
        kind: ``cut``, ``training``, ``channels``, ``size`` or ``batch``.
        label: what was asked for or done: ``--nms outside``.
        before, after: the graph. Of a new size that the graph before does not take, ``after`` is
            the same edit to the size that it has.
        against: what it is checked against.
        instead: what a user can do where it went wrong.
    """

    kind: str
    label: str
    before: ModelProto
    after: ModelProto
    against: str
    instead: str


@dataclass(frozen=True)
class EditedModel:
    """A graph after its edits.

    Attributes:
        model: what is converted.
        recipe: fields of the recipe that are known from what was cut off.
        reason: of those fields.
        stages: the edits that changed it, in order.
    """

    model: ModelProto
    recipe: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    stages: tuple[EditStage, ...] = ()
