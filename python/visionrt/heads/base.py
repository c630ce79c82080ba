"""What a head is: it turns the raw outputs of a batch into one result per image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from visionrt.errors import ModelError, UsageError
from visionrt.manifest import TensorInfo
from visionrt.options import PredictOptions
from visionrt.recipe import Recipe
from visionrt.results import Result

if TYPE_CHECKING:
    from visionrt.preprocess import Geometry


class Frame(NamedTuple):
    """One image of the batch: its size in pixels, and where it lies in the tensor."""

    image_hw: tuple[int, int]
    geometry: Geometry


class Head(Protocol):
    """A decoder of one output layout, built from a recipe and the graph's outputs.

    Immutable after construction, so safe from several threads.
    """

    def decode(
        self,
        outputs: Mapping[str, NDArray[Any]],
        frames: Sequence[Frame],
        options: PredictOptions,
    ) -> Sequence[Result]:
        """One result per frame, in order. The leading axis of every output is the batch.

        Raises:
            ModelError: an output has another shape than the head's layout.
        """
        ...


def check_options(recipe: Recipe, known: Collection[str]) -> Mapping[str, Any]:
    """The recipe's head options. Raises UsageError when one is not in ``known``."""
    unknown = sorted(set(recipe.head_options) - set(known))
    if unknown:
        raise UsageError(
            f"head options of {recipe.head}: {', '.join(sorted(known))}",
            got=", ".join(unknown),
            fix="Correct head_options in the recipe.",
        )
    return recipe.head_options


def choice(recipe: Recipe, key: str, allowed: Sequence[Any], default: Any) -> Any:
    """A head option that is one of a few values. Raises UsageError otherwise."""
    value = recipe.head_options.get(key, default)
    if value not in allowed or isinstance(value, bool) != isinstance(default, bool):
        raise bad_option(recipe, key, " | ".join(map(str, allowed)), value)
    return value


def bad_option(recipe: Recipe, key: str, expected: str, got: object) -> UsageError:
    """The error for a head option of a wrong type or value."""
    return UsageError(
        f"head option {key} of {recipe.head}: {expected}",
        got="none" if got is None else repr(got),
        fix="Correct head_options in the recipe.",
    )


def output_named(recipe: Recipe, outputs: Sequence[TensorInfo], key: str = "output") -> TensorInfo:
    """The output that a head option names; without the option, the only one there is.

    Raises:
        UsageError: no output of that name, or no name and several outputs.
    """
    name = recipe.head_options.get(key)
    for info in outputs:
        if info.name == name or (name is None and len(outputs) == 1):
            return info
    raise bad_option(recipe, key, f"one of {[o.name for o in outputs]}", name)


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """C-contiguous float32; no copy when it is so already."""
    return np.ascontiguousarray(array, dtype=np.float32)


def bad_shape(name: str, expected: str, got: Sequence[int | str]) -> ModelError:
    """The error for an output that does not have the head's layout."""
    return ModelError(
        f"output {name} of shape {expected}",
        got=f"[{', '.join(map(str, got))}]",
        fix="Choose the head that fits the model, or correct head_options.",
    )
