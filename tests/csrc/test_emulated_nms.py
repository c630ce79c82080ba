"""The CUDA back end of NMS, its own launcher and kernels, executed on the host under the checker.

The CPU back end must give the same indices, bit for bit; it is itself tested against references
(test_nms.py), of which the float64 one is asked here again.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import test_nms as cpu

from emulation import worker
from visionrt import _core
from visionrt.preprocess import Preprocessor, boxes_to_image
from visionrt.spec import PreprocessSpec

pytestmark = pytest.mark.skipif(bool(worker.problem()), reason=worker.problem() or "runs")

F32, I32 = np.float32, np.int32
NO_LIMIT = 2**31 - 1
Array = np.ndarray[Any, Any]


def cuda_nms(
    boxes: Array,
    scores: Array,
    class_ids: Array | None,
    counts: Array | None,
    threshold: float,
    max_det: int,
    source: Array | None = None,
    class_aware: bool = True,
    max_candidates: int = NO_LIMIT,
    **filters: Any,
) -> tuple[Array, Array, Array]:
    """(kept, kept_counts, detections) of one batch. Whatever must not be read is not written."""
    device = worker.emulator()
    batch, capacity = scores.shape
    with ExitStack() as stack:

        def given(array: Array | None, name: str) -> int:
            if array is None:
                return 0
            buffer = stack.enter_context(device.empty(array.shape, array.dtype, name))
            buffer.array[...] = array
            for image in range(batch):
                used = capacity if counts is None else int(np.clip(counts[image], 0, capacity))
                row = array[image]
                size = row.nbytes if row.ndim == 0 else used * row[:1].nbytes
                device.mark_written(buffer.address + image * row.nbytes, size)
            return buffer.address

        def made(shape: tuple[int, ...], dtype: Any, name: str) -> Any:
            return stack.enter_context(device.empty(shape, dtype, name))

        size = _core.cuda_nms_workspace_bytes(batch, capacity, max_det, max_candidates)
        workspace = made((size,), np.uint8, "workspace")
        kept, kept_counts = made((batch, max_det), I32, "kept"), made((batch,), I32, "kept_counts")
        detections = made((batch, max_det, 8), F32, "detections")
        worker.queue(
            _core.cuda_nms,
            given(boxes, "boxes"),
            given(scores, "scores"),
            given(class_ids, "class_ids"),
            given(source, "source_index"),
            given(counts, "counts"),
            batch,
            capacity,
            threshold,
            max_det,
            workspace.address,
            size,
            kept.address,
            kept_counts.address,
            0,
            detections=detections.address,
            class_aware=class_aware,
            max_candidates=max_candidates,
            **filters,
        )
        return kept.array.copy(), kept_counts.array.copy(), detections.array.copy()


def check_detections(
    got: Array, kept: Array, boxes: Array, scores: Array, ids: Array, source: Array | None
) -> None:
    for image, row in enumerate(kept):
        chosen = row[row >= 0]
        found, rest = got[image, : len(chosen)], got[image, len(chosen) :]
        assert found[:, :4].tobytes() == boxes[image][chosen].tobytes()
        assert found[:, 4].tobytes() == scores[image][chosen].tobytes()
        assert found[:, 5].tolist() == ids[image][chosen].astype(F32).tolist()
        assert found[:, 6].tobytes() == ids[image][chosen].astype(I32).tobytes()
        index = chosen if source is None else source[image][chosen]
        assert found[:, 7].tobytes() == index.astype(I32).tobytes()
        assert not rest.view(I32).any()


def random_case(rng: np.random.Generator) -> dict[str, Any]:
    """A batch with every option drawn; sizes around those of warps, tiles and chunks."""
    batch = int(rng.choice([1, 1, 3]))
    n = int(rng.choice([0, 1, 2, 31, 32, 33, 64, 127, 128, 129, *rng.integers(3, 60, 10)]))
    make = cpu.integer_boxes if rng.integers(2) else cpu.clustered_boxes
    images = []
    for _ in range(batch):
        problem = (
            make(rng, n),
            rng.random(n).astype(F32),
            rng.integers(0, int(rng.choice([1, 3, 80])), n).astype(I32),
        )
        variant = cpu.VARIANTS[int(rng.integers(len(cpu.VARIANTS)))]
        images.append(variant(rng, problem) if n else problem)
    boxes, scores, class_ids = (np.stack(part) for part in zip(*images, strict=True))
    source = np.stack([3 * rng.permutation(n) for _ in range(batch)]).astype(I32)
    return {
        "boxes": boxes,
        "scores": scores,
        "class_ids": class_ids if rng.random() < 0.9 else None,
        "counts": rng.integers(-2, n + 5, batch).astype(I32) if rng.random() < 0.5 else None,
        "threshold": float(rng.choice([0, 0.25, 0.45, 0.5, 0.7, 1])),
        "max_det": int(rng.choice([1, 5, 40, 130])),
        "source": source if rng.random() < 0.4 else None,
        "class_aware": bool(rng.random() < 0.7),
        "max_candidates": int(rng.choice([1, 17, 100, NO_LIMIT])),
    }


def check_case(case: dict[str, Any]) -> int:
    """Compares one case with the CPU back end; returns how many boxes were kept."""
    kept, kept_counts, detections = cuda_nms(**case)
    expected, expected_counts = _core.nms_batched(
        case["boxes"],
        case["scores"],
        case["class_ids"] if case["class_aware"] else None,
        case["counts"],
        case["threshold"],
        case["max_det"],
        source_index=case["source"],
        max_candidates=case["max_candidates"],
    )
    assert kept_counts.tolist() == expected_counts.tolist()
    assert kept.tolist() == expected.tolist()
    ids = case["class_ids"]
    ids = np.zeros(case["scores"].shape, I32) if ids is None else ids
    check_detections(detections, kept, case["boxes"], case["scores"], ids, case["source"])
    return int(kept_counts.sum())


def random_cases(seed: int, count: int) -> int:
    rng = np.random.default_rng(seed)
    worker.emulator().seed(seed)
    return sum(check_case(random_case(rng)) for _ in range(count))


@pytest.mark.parametrize("seed", range(4))
def test_random_cases_equal_the_cpu_back_end(seed: int) -> None:
    assert worker.run(random_cases, seed, 275) > 1000


def infinite_boxes(rng: np.random.Generator, boxes: Array) -> Array:
    """A copy of which some coordinates are infinite or NaN."""
    out = boxes.copy()
    odd = rng.random(out.shape) < 0.04
    out[odd] = rng.choice(np.array([np.inf, -np.inf, np.nan], F32), int(odd.sum()))
    return out


def filtered_cases(seed: int, count: int) -> int:
    """What a head's decode does on the CPU: filter, NMS, and boxes to the pixels of the image."""
    rng = np.random.default_rng(seed)
    worker.emulator().seed(seed)
    specs = [PreprocessSpec(size=(64, 48)), PreprocessSpec(resize="crop", size=(50, 50))]
    total = 0
    for _ in range(count):
        case = random_case(rng)
        batch, n = case["scores"].shape
        case |= {"boxes": infinite_boxes(rng, case["boxes"]), "counts": None}
        highest = 0 if case["class_ids"] is None else int(case["class_ids"].max(initial=0))
        wanted = rng.integers(0, min(max(highest, 1), 4095) + 1, 3).tolist()
        filters: dict[str, Any] = {
            "finite_only": bool(rng.random() < 0.8),
            "classes": wanted if rng.random() < 0.7 else None,
        }
        prepare = Preprocessor(specs[int(rng.integers(2))])
        places = [prepare.geometry(*rng.integers(1, 900, 2).tolist()) for _ in range(batch)]
        kept, counts, rows = cuda_nms(**case, **filters, geometries=places)
        for image in range(batch):
            boxes, scores = case["boxes"][image], case["scores"][image]
            ids = np.zeros(n, I32) if case["class_ids"] is None else case["class_ids"][image]
            some = np.isfinite(boxes).all(axis=1) | (not filters["finite_only"])
            if filters["classes"] is not None:
                some &= np.isin(ids, filters["classes"])
            chosen = np.flatnonzero(some)
            found = _core.nms(
                boxes[chosen],
                scores[chosen],
                ids[chosen] if case["class_aware"] else None,
                case["threshold"],
                case["max_det"],
                None if case["source"] is None else case["source"][image][chosen],
                case["max_candidates"],
            )
            expected = chosen[found]
            assert kept[image, : counts[image]].tolist() == expected.tolist()
            there = boxes_to_image(places[image], boxes[expected])
            np.testing.assert_array_equal(rows[image, : counts[image], :4], there)
            total += len(found)
    return total


@pytest.mark.parametrize("seed", range(2))
def test_filtered_and_mapped_rows_equal_the_heads(seed: int) -> None:
    assert worker.run(filtered_cases, seed, 300) > 1000


def extra_columns(seed: int) -> int:
    """Of the kept, from outputs in both layouts, for more images than one launch maps."""
    rng = np.random.default_rng(seed)
    batch, anchors, classes, columns = (1, 33, 2, 5) if seed else (35, 9, 1, 2)
    output = rng.random((batch, anchors, 3 + columns)).astype(F32)
    steps = (output[0].size, 3 + columns, 1)
    if seed % 2:
        output, steps = output.transpose(0, 2, 1).copy(), (output[0].size, 1, anchors)
    values = output if seed % 2 == 0 else output.transpose(0, 2, 1)
    boxes = np.stack([cpu.clustered_boxes(rng, anchors) for _ in range(batch)])
    scores, ids = (
        rng.random((batch, anchors)).astype(F32),
        rng.integers(0, classes, (batch, anchors)),
    )
    source = np.stack([rng.permutation(anchors) for _ in range(batch)]) * classes + ids
    places = [Preprocessor(PreprocessSpec()).geometry(30, 40)] * batch
    device, max_det = worker.emulator(), 7
    with ExitStack() as stack:
        given = stack.enter_context(device.buffer(output, "output"))
        out = stack.enter_context(device.empty((batch, max_det, columns), F32, "extra"))
        first = given.address + 4 * 3 * steps[2]
        kept, counts, _ = cuda_nms(
            *(boxes, scores, ids.astype(I32), None, 0.5, max_det, source.astype(I32)),
            geometries=places,
            extra=(first, *steps, classes, columns, out.address),
        )
        for image in range(batch):
            chosen = source[image][kept[image, : counts[image]]] // classes
            got = out.array[image, : counts[image]]
            assert got.tobytes() == values[image][chosen, 3:].tobytes()
    return int(counts.sum())


@pytest.mark.parametrize("seed", range(3))
def test_further_columns_of_the_kept(seed: int) -> None:
    assert worker.run(extra_columns, seed) > 3


def more_images_than_a_launch_maps() -> int:
    rng = np.random.default_rng(2)
    batch, n = 70, 5
    boxes = np.stack([cpu.clustered_boxes(rng, n) for _ in range(batch)])
    scores = rng.random((batch, n)).astype(F32)
    prepare = Preprocessor(PreprocessSpec(size=(64, 64)))
    places = [prepare.geometry(30 + 3 * i, 500 - i) for i in range(batch)]
    counts = rng.integers(0, n + 1, batch).astype(I32)
    case: Any = (boxes, scores, None, counts, 0.5, 4)
    kept, found, rows = cuda_nms(*case, geometries=places)
    plain, plain_found, _ = cuda_nms(*case)
    assert kept.tolist() == plain.tolist()
    assert found.tolist() == plain_found.tolist()
    for image in range(batch):
        expected = boxes_to_image(places[image], boxes[image][kept[image, : found[image]]])
        np.testing.assert_array_equal(rows[image, : found[image], :4], expected)
    return int(found.sum())


def test_more_images_than_a_launch_maps() -> None:
    assert worker.run(more_images_than_a_launch_maps) > 70


def float64_cases(count: int) -> int:
    rng = np.random.default_rng(7)
    total = 0
    for _ in range(count):
        n = int(rng.integers(1, 90))
        boxes, scores = cpu.integer_boxes(rng, n), rng.random(n).astype(F32)
        ids = rng.integers(0, 2, n).astype(I32)
        threshold = float(rng.choice([0, 0.125, 0.25, 0.5, 0.75]))
        expected = cpu.reference(boxes, scores, ids, threshold, 60, np.float64)
        kept, kept_counts, _ = cuda_nms(boxes[None], scores[None], ids[None], None, threshold, 60)
        assert kept[0, : kept_counts[0]].tolist() == expected
        total += len(expected)
    return total


def test_the_float64_reference_agrees() -> None:
    assert worker.run(float64_cases, 150) > 1000


def last_bit_pairs(count: int) -> int:
    """Thresholds next to each pair's own IoU; a batch holds one pair an image."""
    rng = np.random.default_rng(9)
    boxes = np.stack([cpu.clustered_boxes(rng, 2) for _ in range(count)])
    a, b = boxes[:, 0], boxes[:, 1]
    width, height = np.maximum(np.minimum(a, b)[:, 2:] - np.maximum(a, b)[:, :2], 0).T
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    iou = width * height / ((areas[:, 0] + areas[:, 1]) - width * height)
    scores = np.tile(np.array([1, 0], F32), (count, 1))
    undecided = np.flatnonzero(iou > 0)[:60]
    for i in undecided:
        for threshold in (np.nextafter(iou[i], F32(0)), iou[i], np.nextafter(iou[i], F32(1))):
            expected = cpu.reference(boxes[i], scores[i], None, threshold, 2, F32)
            kept, kept_counts, _ = cuda_nms(
                boxes[i, None], scores[i, None], None, None, threshold, 2
            )
            assert kept[0, : kept_counts[0]].tolist() == expected
    return len(undecided)


def test_the_last_bit_of_the_threshold() -> None:
    assert worker.run(last_bit_pairs, 400) == 60


def several_chunks() -> int:
    """More than one chunk of candidates, under the checker."""
    rng = np.random.default_rng(11)
    kept = 0
    for n, max_det in ((600, 300), (513, 600), (385, 129)):
        case = random_case(rng) | {"counts": None, "source": None, "max_candidates": NO_LIMIT}
        boxes = cpu.clustered_boxes(rng, n)[None]
        scores = rng.choice(np.linspace(0, 1, 50, dtype=F32), (1, n))
        ids = rng.integers(0, 3, (1, n)).astype(I32)
        case |= {"boxes": boxes, "scores": scores, "class_ids": ids}
        kept += check_case(case | {"max_det": max_det, "threshold": 0.45})
    return kept


def test_several_chunks_under_the_checker() -> None:
    assert worker.run(several_chunks) > 300


def several_tiles(n: int) -> int:
    """Sizes around those of a sorted tile, ties across tiles, NaN, a count for each image."""
    rng = np.random.default_rng(n)
    scores = rng.choice(np.linspace(-1, 1, 300, dtype=F32), (2, n))
    scores[:, rng.integers(0, n, n // 10)] = np.nan
    case: dict[str, Any] = {
        "boxes": np.stack([cpu.clustered_boxes(rng, n) for _ in range(2)]),
        "scores": scores,
        "class_ids": rng.integers(0, 3, (2, n)).astype(I32),
        "counts": np.array([n, n - 3], I32),
        "threshold": 0.45,
        "max_det": 40,
        "class_aware": True,
        "max_candidates": NO_LIMIT,
        "source": np.stack([7 * rng.permutation(n) for _ in range(2)]).astype(I32),
    }
    return check_case(case) + check_case(case | {"source": None, "max_candidates": 2100})


@pytest.mark.parametrize("n", [2047, 2048, 2049, 4097, 6000])
def test_several_tiles_under_the_checker(n: int) -> None:
    assert worker.run(several_tiles, n) > 100


def large(batch: int, n: int, max_det: int) -> int:
    rng = np.random.default_rng(n)
    boxes = np.stack([cpu.clustered_boxes(rng, n) for _ in range(batch)])
    device = worker.emulator()
    device.checking(False)
    try:
        return check_case(
            {
                "boxes": boxes,
                "scores": rng.choice(np.linspace(0, 1, 5000, dtype=F32), (batch, n)),
                "class_ids": rng.integers(0, 5, (batch, n)).astype(I32),
                "counts": None if batch == 1 else rng.integers(n // 2, n, batch).astype(I32),
                "threshold": 0.6,
                "max_det": max_det,
                "class_aware": True,
                "max_candidates": 30_000,
                "source": None,
            }
        )
    finally:
        device.checking(True)


@pytest.mark.slow
def test_thirty_thousand_candidates() -> None:
    assert worker.run(large, 1, 30_000, 3000) == 3000


@pytest.mark.slow
def test_a_batch_of_sixteen_images() -> None:
    assert worker.run(large, 16, 2000, 300) > 1600
