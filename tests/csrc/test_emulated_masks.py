"""The CUDA back end of instance masks, its launcher and kernel, on the host under the checker.

Its bytes must equal those of the CPU back end, which is itself tested against float64.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import masks_reference as reference
import numpy as np
import pytest

from emulation import worker
from visionrt import _core

pytestmark = pytest.mark.skipif(bool(worker.problem()), reason=worker.problem() or "runs")

Array = np.ndarray[Any, Any]


def cuda_masks(case: reference.Case, count: int | None = None, offset: int = 0) -> Array:
    """The kernel's masks, ``offset`` bytes after an aligned address. Nothing before is written."""
    device = worker.emulator()
    h, w = case["size"]
    total = len(case["boxes"])
    with ExitStack() as stack:
        names = ("prototypes", "coefficients", "boxes")
        given = {name: stack.enter_context(device.buffer(case[name], name)) for name in names}
        counts = stack.enter_context(device.buffer(np.array([count or 0], np.int32), "count"))
        masks = stack.enter_context(device.empty(offset + total * h * w, np.uint8, "masks"))
        before = masks.array[:offset].tobytes()
        worker.queue(
            _core.cuda_instance_masks,
            given["prototypes"].address,
            case["prototypes"].shape,
            given["coefficients"].address,
            given["boxes"].address,
            0 if count is None else counts.address,
            total,
            case["size"],
            case["scale"],
            case["shift"],
            masks.address + offset,
            0,
            threshold=case["threshold"],
        )
        assert masks.array[:offset].tobytes() == before
        return masks.array[offset:].reshape(total, h, w).copy()


def check_case(case: reference.Case, count: int | None = None, offset: int = 0) -> int:
    got = cuda_masks(case, count, offset)
    expected = _core.instance_masks(**case)
    if count is not None:
        expected[max(0, count) :] = 0
    assert got.tobytes() == expected.tobytes(), case
    return int(got.sum())


def random_cases(seed: int, count: int) -> int:
    rng = np.random.default_rng(seed)
    worker.emulator().seed(seed)
    return sum(
        check_case(
            reference.random_case(rng),
            [None, -1, 0, 2, 9][int(rng.integers(5))],
            int(rng.choice([0, 1, 8, 16])),
        )
        for _ in range(count)
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_equal_the_cpu_back_end(seed: int) -> None:
    assert worker.run(random_cases, seed, 500) > 10_000


def several_tiles() -> int:
    """Boxes over several blocks; a window so much smaller that no block can keep its sums."""
    rng = np.random.default_rng(5)
    done = 0
    for size, scale in (
        ((70, 272), (0.25, 0.25)),
        ((40, 150), (2.5, 0.5)),
        ((20, 200), (4.0, 3.0)),
    ):
        case = reference.random_case(rng) | {"size": size, "scale": scale, "shift": (0.0, 0.0)}
        sides = [int(np.ceil(s * f)) for s, f in zip(size, scale, strict=True)]
        case["prototypes"] = rng.normal(size=(3, *sides)).astype(np.float32)
        case["coefficients"] = rng.normal(size=(3, 3)).astype(np.float32)
        case["boxes"] = np.array(
            [[0, 0, size[1], size[0]], [100, 10, 140, 35], [-5, 3.5, 129.5, 33]], np.float32
        )
        done += check_case(case)
    return done


def test_several_tiles() -> None:
    assert worker.run(several_tiles) > 5000


def whole_result(count: int) -> int:
    """20 places of which some are used, at the sizes of a YOLO segmenter."""
    rng = np.random.default_rng(6)
    device = worker.emulator()
    case = {
        "prototypes": rng.normal(size=(32, 160, 160)).astype(np.float32),
        "coefficients": rng.normal(size=(20, 32)).astype(np.float32),
        "boxes": reference.random_boxes(rng, 20, (640, 640)),
        "size": (640, 640),
        "scale": (0.25, 0.25),
        "shift": (0.0, 0.0),
        "threshold": 0.0,
    }
    device.checking(False)
    try:
        return check_case(case, count)
    finally:
        device.checking(True)


@pytest.mark.slow
def test_the_masks_of_a_frame() -> None:
    assert worker.run(whole_result, 15) > 100_000
