"""Instance masks on the CPU against float64."""

from __future__ import annotations

from typing import Any

import masks_reference as reference
import numpy as np
import pytest

from visionrt import _core

F32 = np.float32


def test_random_cases_equal_float64_where_it_decides() -> None:
    rng = np.random.default_rng(1)
    ones = undecided = total = 0
    for _ in range(1000):
        case = reference.random_case(rng)
        expected, decided = reference.masks(case)
        got = _core.instance_masks(**case)
        assert got.dtype == np.uint8
        assert got.shape == expected.shape
        assert np.array_equal(got[decided], expected[decided]), case
        ones += int(got.sum())
        undecided += int((~decided).sum())
        total += got.size
    assert ones > 100_000
    assert undecided < total / 10_000


def exact_case(seed: int) -> dict[str, Any]:
    """Small integers and weights of eighths: float32 makes no error, so ties are ties."""
    rng = np.random.default_rng(seed)
    boxes = np.array([[0, 0, 64, 48], [3, 5, 40, 40], [10.5, 7.5, 20.5, 30.5]], F32)
    return {
        "prototypes": rng.integers(-2, 3, (4, 12, 16)).astype(F32),
        "coefficients": rng.integers(-2, 3, (3, 4)).astype(F32),
        "boxes": boxes,
        "size": (48, 64),
        "scale": (0.25, 0.25),
        "shift": (0.0, 0.0),
        "threshold": 0.5,
    }


@pytest.mark.parametrize("seed", range(5))
def test_exact_values_agree_everywhere_ties_included(seed: int) -> None:
    case = exact_case(seed)
    expected, _ = reference.masks(case)
    assert np.array_equal(_core.instance_masks(**case), expected)
    case |= {"threshold": 0.0}
    expected, _ = reference.masks(case)
    assert np.array_equal(_core.instance_masks(**case), expected)


def test_a_value_equal_to_the_threshold_is_outside() -> None:
    case = exact_case(0) | {"prototypes": np.full((4, 12, 16), 2, F32)}
    case["coefficients"] = np.ones((3, 4), F32)
    assert not _core.instance_masks(**case | {"threshold": 8.0}).any()
    filled = _core.instance_masks(**case | {"threshold": float(np.nextafter(F32(8), F32(0)))})
    assert filled[0].all()
    # Centres 10.5 ... 19.5 lie in [10.5, 20.5).
    assert filled[2].sum() == 10 * 23


def test_nan_is_above_no_threshold() -> None:
    case = exact_case(1)
    case["coefficients"][0, 0] = np.nan
    masks = _core.instance_masks(**case)
    assert not masks[0].any()
    assert masks[1:].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prototypes": np.zeros((4, 12), F32)}, "prototypes must have shape"),
        ({"prototypes": np.zeros((4, 0, 16), F32)}, "prototypes' height must be 1 to"),
        ({"prototypes": np.zeros((0, 12, 16), F32), "coefficients": np.zeros((3, 0), F32)}, "chan"),
        ({"coefficients": np.zeros((3, 5), F32)}, "coefficients must have shape"),
        ({"boxes": np.zeros((2, 4), F32)}, "boxes must have shape"),
        ({"size": (-1, 4)}, "window's height must be 0 to"),
        ({"size": (4, 2**20 + 1)}, "window's width must be 0 to"),
        ({"scale": (0.0, 1.0)}, "y mapping must have a finite scale above 0"),
        ({"shift": (0.0, float("inf"))}, "x mapping must have"),
        ({"threshold": float("nan")}, "threshold must be a number"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _core.instance_masks(**exact_case(0) | changes)


def queue(**changes: Any) -> None:
    arguments: dict[str, Any] = {
        "prototypes": 4096,
        "shape": (4, 12, 16),
        "coefficients": 4096,
        "boxes": 4096,
        "count": 0,
        "detections": 3,
        "size": (48, 64),
        "scale": (0.25, 0.25),
        "shift": (0.0, 0.0),
        "masks": 4096,
        "stream": 0,
    }
    _core.cuda_instance_masks(**arguments | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"detections": 65536}, "detections must be 0 to 65535"),
        ({"detections": -1}, "detections must be 0 to"),
        ({"shape": (4, 12, 0)}, "prototypes' width must be 1 to"),
    ],
)
def test_wrong_sizes_are_refused_before_a_launch(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        queue(**changes)


def test_nothing_to_make_is_no_work() -> None:
    queue(detections=0)
    queue(size=(0, 64))
