"""The real GPU as the platform of the checks in tests/emulation: plans are built for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from gpu_models import Plans

from trtconvert.targets.base import ShapeRange, Target
from trtconvert.targets.rtx import RtxTarget
from trtconvert.targets.tensorrt import TensorRTTarget
from visionrt.device import open_device
from visionrt.manifest import PlanInfo

LARGEST_BATCH = 8
# The engines of gpu_models take means of 64 × 64 values up to 1. In any order of summation such a
# mean is off by at most 4096 · 2⁻²⁴, on either side; a float16 output by one place in [1, 2).
TOLERANCE = 2 * 4096 * 2**-24 + 2**-10


class RealGpu:
    """Builds plans by one target, each graph once; see ``gpu_models.Platform``."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._built: dict[bytes, tuple[PlanInfo, bytes]] = {}

    @contextlib.contextmanager
    def plans(self, model: bytes, session: Any, **options: Any) -> Iterator[Plans]:
        assert session is None, "a session runs on the fake GPU alone"
        assert not options, options
        if model not in self._built:
            built = self._target.build(model, batch_ranges(model), None)
            self._built[model] = (built.info, built.data)
        info, _ = plan = self._built[model]
        yield {info.member: plan}

    def compare(self, got: Any, wanted: Any) -> None:
        close_to(got, wanted, TOLERANCE)

    def calls(self, name: str) -> int:
        return 0


def target_named(name: str) -> Target:
    """``rtx`` or ``tensorrt`` for GPU 0, in a process without fixtures."""
    if name == "tensorrt":
        return TensorRTTarget()
    return RtxTarget((open_device(0).info.compute_capability,))


def batch_ranges(model: bytes) -> dict[str, ShapeRange]:
    """For each input with a symbolic batch: 1 to ``LARGEST_BATCH``."""
    out = {}
    for value in onnx.load_from_string(model).graph.input:
        first, *rest = value.type.tensor_type.shape.dim
        if not first.HasField("dim_value"):
            shape = tuple(size.dim_value for size in rest)
            least = (1, *shape)
            out[value.name] = ShapeRange(least, least, (LARGEST_BATCH, *shape))
    return out


def close_to(got: Any, wanted: Any, tolerance: float) -> None:
    """The same boxes with scores within the tolerance; or logits within it."""
    if hasattr(wanted, "xyxy"):
        # Scores this close may trade places, so both are put in an order of their own. The boxes
        # are constants of the graph, which kernels and twin decode alike.
        ours, theirs = _order(got), _order(wanted)
        np.testing.assert_array_equal(got.class_id[ours], wanted.class_id[theirs])
        np.testing.assert_array_equal(got.xyxy[ours], wanted.xyxy[theirs])
        np.testing.assert_allclose(
            got.confidence[ours], wanted.confidence[theirs], rtol=0, atol=tolerance
        )
    else:
        np.testing.assert_allclose(got.logits, wanted.logits, rtol=0, atol=tolerance)


def _order(result: Any) -> np.ndarray:
    return np.lexsort((*result.xyxy.T, result.class_id))
