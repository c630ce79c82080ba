"""What a model can be built for: ``rtx:sm86,sm89``, ``tensorrt`` and ``cpu``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from trtconvert.targets.base import Target
from trtconvert.targets.cpu import CpuTarget
from trtconvert.targets.rtx import DEFAULT_SMS, RtxTarget, parse_sms
from trtconvert.targets.tensorrt import TensorRTTarget
from visionrt.errors import UsageError

TARGET_NAMES = ("rtx", "tensorrt", "cpu")
# What people write -> the target they mean.
_SPELLINGS = {n: n for n in TARGET_NAMES} | {"tensorrt_rtx": "rtx", "trt": "tensorrt"}

__all__ = ["TARGET_NAMES", "Target", "parse_target", "parse_targets"]


def parse_target(text: str) -> list[Target]:
    """The targets that one ``--target`` names; ``rtx`` gives one per GPU, each with its own plan.

    Raises:
        UsageError: an unknown name or GPU, or one GPU twice.
    """
    return parse_targets([text])


def parse_targets(texts: Iterable[str]) -> list[Target]:
    """The targets of several ``--target`` flags, in their order. Raises as :func:`parse_target`."""
    out: list[Target] = []
    for text in texts:
        out.extend(_parse(text))
    names = [target.name for target in out]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            "each target once", got=f"{', '.join(twice)} twice", fix="Leave the second one out."
        )
    return out


def _parse(text: str) -> list[Target]:
    name, colon, rest = text.strip().partition(":")
    name = name.strip().lower()
    if name not in TARGET_NAMES:
        near = difflib.get_close_matches(name, _SPELLINGS, 1)
        raise UsageError(
            "a target: rtx, rtx:sm86,sm89, tensorrt or cpu",
            got=repr(text),
            fix=f"Did you mean {_SPELLINGS[near[0]]!r}?" if near else "Correct the name.",
        )
    if name == "rtx":
        sms = parse_sms(rest) if colon else DEFAULT_SMS
        return [RtxTarget((sm,)) for sm in sms]
    if colon:
        raise UsageError(
            f"target {name} without options", got=repr(text), fix=f"Write --target {name}."
        )
    return [TensorRTTarget()] if name == "tensorrt" else [CpuTarget()]
