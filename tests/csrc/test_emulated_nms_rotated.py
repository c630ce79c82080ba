"""The CUDA back end of rotated NMS, its launcher and kernels, on the host under the checker.

The CPU back end must give the same indices; test_nms_rotated.py tests it against float64.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import rotated_reference as reference

from emulation import worker
from visionrt import _core

pytestmark = pytest.mark.skipif(bool(worker.problem()), reason=worker.problem() or "runs")

F32, I32 = np.float32, np.int32
Array = np.ndarray[Any, Any]


def cuda_nms(case: dict[str, Any]) -> tuple[Array, Array, Array]:
    """Kept, counts and detections of a batch whose angles lie in an output of ``classes`` rows."""
    device = worker.emulator()
    batch, capacity = case["scores"].shape
    classes, max_det = case["classes"], case["max_det"]
    with ExitStack() as stack:

        def given(array: Array, name: str) -> int:
            return int(stack.enter_context(device.buffer(array, name)).address)

        def made(shape: tuple[int, ...], dtype: Any, name: str) -> Any:
            return stack.enter_context(device.empty(shape, dtype, name))

        size = _core.cuda_nms_rotated_workspace_bytes(batch, capacity, max_det)
        workspace = made((size,), np.uint8, "workspace")
        kept, counts = made((batch, max_det), I32, "kept"), made((batch,), I32, "kept_counts")
        detections = made((batch, max_det, 8), F32, "detections")
        # Per image, a row of two values per anchor, of which the second is the angle.
        anchors = capacity + 1
        output = np.zeros((batch, anchors, 2), F32)
        for image in range(batch):
            output[image, case["source"][image] // classes, 1] = case["angles"][image]
        worker.queue(
            _core.cuda_nms_rotated,
            given(np.ascontiguousarray(case["boxes"]), "boxes"),
            given(output, "angles") + 4,
            2 * anchors,
            2,
            classes,
            given(case["scores"], "scores"),
            given(case["ids"], "class_ids"),
            given(case["source"], "source_index"),
            given(case["counts"], "counts"),
            batch,
            capacity,
            case["iou"],
            max_det,
            workspace.address,
            size,
            kept.address,
            counts.address,
            0,
            detections=detections.address,
            class_aware=case["aware"],
        )
        return kept.array.copy(), counts.array.copy(), detections.array.copy()


def random_case(rng: np.random.Generator, n: int) -> dict[str, Any]:
    classes = int(rng.choice([1, 3]))
    batch = int(rng.choice([1, 2]))
    boxes = np.stack([reference.random_boxes(rng, n) for _ in range(batch)])
    # Anchors in another order than the candidates; one candidate an anchor.
    anchors = np.stack([rng.permutation(n // classes)[:n] for _ in range(batch)])
    n = anchors.shape[1]
    ids = rng.integers(0, classes, (batch, n)).astype(I32)
    boxes = boxes[:, :n]
    odd = rng.random((batch, n)) < 0.05
    boxes[..., 4][odd] = rng.choice(np.array([np.nan, np.inf, 1e9, 8000], F32), int(odd.sum()))
    return {
        "boxes": boxes[..., :4],
        "angles": boxes[..., 4],
        "scores": rng.choice(np.linspace(0, 1, 20, dtype=F32), (batch, n)),
        "ids": ids,
        "source": (anchors * classes + ids).astype(I32),
        "counts": rng.integers(0, n + 2, batch).astype(I32),
        "classes": classes,
        "iou": float(rng.choice([0, 0.3, 0.5, 1])),
        "max_det": int(rng.choice([1, 7, 200])),
        "aware": bool(rng.random() < 0.7),
    }


def check(case: dict[str, Any]) -> int:
    kept, counts, detections = cuda_nms(case)
    for image, count in enumerate(np.clip(case["counts"], 0, case["scores"].shape[1])):
        order = np.argsort(case["source"][image, :count])
        arrays = [case[key][image, :count][order] for key in ("boxes", "angles", "scores", "ids")]
        boxes, angles, scores, ids = (np.ascontiguousarray(a) for a in arrays)
        groups = ids if case["aware"] else None
        wanted = _core.nms_rotated(boxes, angles, scores, groups, case["iou"], case["max_det"])
        found = kept[image, : counts[image]]
        assert found.tolist() == order[wanted].tolist()
        rows = detections[image, : len(found)]
        assert rows[:, :4].tobytes() == boxes[wanted].tobytes()
        assert rows[:, 5].tobytes() == angles[wanted].tobytes()
    return int(counts.sum())


def random_cases(seed: int, count: int) -> int:
    rng = np.random.default_rng(seed)
    worker.emulator().seed(seed)
    return sum(check(random_case(rng, int(rng.choice([3, 33, 90])))) for _ in range(count))


@pytest.mark.parametrize("seed", range(2))
def test_random_cases_equal_the_cpu_back_end(seed: int) -> None:
    assert worker.run(random_cases, seed, 60) > 300


def chunks(seed: int) -> int:
    rng = np.random.default_rng(seed)
    case = random_case(rng, 450)
    size = case["scores"].shape
    return check(case | {"counts": np.full(size[0], size[1], I32), "max_det": 200, "iou": 0.5})


def test_several_chunks_under_the_checker() -> None:
    assert worker.run(chunks, 5) > 50
