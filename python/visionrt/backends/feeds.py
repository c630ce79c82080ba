"""The check of a call's input tensors that the back ends share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from visionrt.errors import InputDataError, UsageError
from visionrt.manifest import TensorInfo


def check_feeds(inputs: Sequence[TensorInfo], feeds: Mapping[str, NDArray[Any]]) -> None:
    """Raise InputDataError unless there is one array of the right dtype and shape per input."""
    if set(feeds) != {i.name for i in inputs}:
        raise InputDataError(
            f"the inputs {[i.name for i in inputs]}",
            got=str(sorted(feeds)),
            fix="Feed every input by its name.",
        )
    for info in inputs:
        array = feeds[info.name]
        # A symbolic size takes anything, a batch of 0 included where the graph can do that.
        sizes_fit = len(array.shape) == len(info.shape) and all(
            isinstance(want, str) or want == got
            for want, got in zip(info.shape, array.shape, strict=True)
        )
        if array.dtype != info.dtype or not sizes_fit:
            raise InputDataError(
                f"the input {info}",
                got=f"{array.dtype}{list(array.shape)}",
                fix="Feed an array of that type and shape.",
            )


def closed(name: str) -> UsageError:
    """The error for a call after ``close``."""
    return UsageError(f"an open {name} back end", got="a closed one", fix="Load the model again.")
