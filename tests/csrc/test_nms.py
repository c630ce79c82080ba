"""NMS against references that share no code with it.

Two references decide overlap: float64, exact on small integer coordinates with dyadic thresholds
(every product fits in 24 bits, so float32 must agree); and NumPy float32 in the documented order
of operations, for any coordinates, where float64 could rightly decide otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visionrt import _core
from visionrt.errors import InputDataError
from visionrt.nms import nms, nms_batched

F32 = np.float32
Problem = tuple[np.ndarray, np.ndarray, np.ndarray]


def reference(
    boxes: np.ndarray,
    scores: np.ndarray,
    class_ids: np.ndarray | None,
    threshold: float,
    max_det: int,
    dtype: type[np.floating],
) -> list[int]:
    """Greedy NMS that strikes out later boxes, in the given precision."""
    x1, y1, x2, y2 = boxes.astype(dtype).T
    with np.errstate(all="ignore"):
        width, height = x2 - x1, y2 - y1
        area = np.where(width > 0, width, 0) * np.where(height > 0, height, 0)
        eligible = ~np.isnan(scores) & ~np.isnan(boxes).any(axis=1)
        order = np.lexsort((np.arange(len(scores)), -scores))
        alive = eligible[order]
        kept: list[int] = []
        for rank, i in enumerate(order):
            if not alive[rank]:
                continue
            kept.append(int(i))
            if len(kept) == max_det:
                break
            rest = order[rank + 1 :]
            w = np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest])
            h = np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest])
            inter = np.where(w > 0, w, 0) * np.where(h > 0, h, 0)
            hit = inter > dtype(threshold) * ((area[i] + area[rest]) - inter)
            if class_ids is not None:
                hit &= class_ids[rest] == class_ids[i]
            alive[rank + 1 :] &= ~hit
    return kept


def integer_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    corner = rng.integers(-20, 20, (n, 2))
    return np.concatenate([corner, corner + rng.integers(0, 24, (n, 2))], axis=1).astype(F32)


def clustered_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    centers = rng.uniform(-50, 600, (max(1, n // 8), 2))[rng.integers(0, max(1, n // 8), n)]
    centers = centers + rng.normal(0, 6, (n, 2))
    size = rng.uniform(5, 90, (n, 2))
    return np.concatenate([centers - size / 2, centers + size / 2], axis=1).astype(F32)


def with_duplicates(rng: np.random.Generator, p: Problem) -> Problem:
    pick = rng.integers(0, max(1, len(p[1]) // 3), len(p[1]))
    return p[0][pick], p[1][pick], p[2][pick]


def with_ties(rng: np.random.Generator, p: Problem) -> Problem:
    return p[0], rng.choice(np.array([-1, -0.0, 0.0, 0.5, 1], F32), len(p[1])), p[2]


def with_nan(rng: np.random.Generator, p: Problem) -> Problem:
    boxes, scores, class_ids = p[0].copy(), p[1].copy(), p[2]
    scores[rng.random(scores.shape) < 0.15] = np.nan
    boxes[rng.random(boxes.shape) < 0.05] = np.nan
    return boxes, scores, class_ids


def with_infinities(rng: np.random.Generator, p: Problem) -> Problem:
    boxes, scores, class_ids = p[0].copy(), p[1].copy(), p[2]
    for values, rate in ((boxes, 0.06), (scores, 0.15)):
        where = rng.random(values.shape) < rate
        values[where] = rng.choice(np.array([-np.inf, np.inf], F32), int(where.sum()))
    return boxes, scores, class_ids


def with_empty_boxes(rng: np.random.Generator, p: Problem) -> Problem:
    boxes = p[0].copy()
    point = rng.random(len(boxes)) < 0.2
    boxes[point, 2:] = boxes[point, :2]
    turned = rng.random(len(boxes)) < 0.1
    boxes[turned] = boxes[turned][:, [2, 3, 0, 1]]
    return boxes, p[1], p[2]


def with_extreme_classes(rng: np.random.Generator, p: Problem) -> Problem:
    extremes = np.array([-(2**31), -1, 0, 1, 255, 256, 2**31 - 1], np.int32)
    return p[0], p[1], rng.choice(extremes, len(p[1]))


def unchanged(_: np.random.Generator, p: Problem) -> Problem:
    return p


VARIANTS: list[Callable[[np.random.Generator, Problem], Problem]] = [
    unchanged,
    with_duplicates,
    with_ties,
    with_nan,
    with_infinities,
    with_empty_boxes,
    with_extreme_classes,
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.__name__)
@pytest.mark.parametrize("exact", [True, False], ids=["integers-float64", "floats-float32"])
def test_equals_the_reference(
    exact: bool, variant: Callable[[np.random.Generator, Problem], Problem]
) -> None:
    rng = np.random.default_rng([VARIANTS.index(variant), exact])
    kept_some = suppressed_some = 0
    for _ in range(750):
        n = int(rng.choice([0, 1, 2, 3, 15, 16, 17, 33, int(rng.integers(4, 90))]))
        boxes = integer_boxes(rng, n) if exact else clustered_boxes(rng, n)
        class_ids = rng.integers(0, int(rng.choice([1, 2, 80])), n).astype(np.int32)
        problem = (
            variant(rng, (boxes, rng.random(n).astype(F32), class_ids))
            if n
            else (boxes, rng.random(n).astype(F32), class_ids)
        )
        threshold = float(
            rng.choice([0, 0.125, 0.25, 0.5, 0.75, 1] if exact else [0, 0.1, 0.45, 0.7, 0.999])
        )
        max_det = int(rng.choice([1, 3, 300]))
        agnostic = bool(rng.random() < 0.3)
        ids = None if agnostic else problem[2]
        dtype = np.float64 if exact else F32
        expected = reference(*problem[:2], ids, threshold, max_det, dtype)
        got = _core.nms(*problem[:2], ids, threshold, max_det)
        assert got.dtype == np.int32
        assert got.tolist() == expected
        kept_some += len(expected)
        suppressed_some += n - len(expected)
    assert kept_some > 1000
    assert suppressed_some > 1000


@pytest.mark.parametrize("n", [700, 5000])
def test_equals_the_reference_on_large_sets(n: int) -> None:
    rng = np.random.default_rng(n)
    boxes, scores = clustered_boxes(rng, n), rng.random(n).astype(F32)
    class_ids = rng.integers(0, 3, n).astype(np.int32)
    for ids in (None, class_ids):
        for max_det in (40, n):
            expected = reference(boxes, scores, ids, 0.45, max_det, F32)
            assert _core.nms(boxes, scores, ids, 0.45, max_det).tolist() == expected


def test_iou_exactly_at_the_threshold_survives() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], F32)  # IoU 50 / 100
    scores = np.array([0.9, 0.8], F32)
    assert _core.nms(boxes, scores, None, 0.5, 10).tolist() == [0, 1]
    assert _core.nms(boxes, scores, None, np.nextafter(F32(0.5), F32(0)), 10).tolist() == [0]


def test_many_boxes_of_iou_exactly_at_the_threshold() -> None:
    # 2k x h against k x h inside it: IoU 1/2 for every k and h.
    for k in range(1, 60):
        for h in (1, 7, 100):
            boxes = np.array([[-k, -h, k, 0], [-k, -h, 0, 0]], F32)
            assert _core.nms(boxes, np.array([0, -1], F32), None, 0.5, 10).tolist() == [0, 1]


def test_the_last_bit_of_the_documented_formula() -> None:
    # Thresholds next to each pair's own IoU: any other order of operations flips some decisions.
    rng = np.random.default_rng(9)
    decisions = []
    for _ in range(2000):
        pair = clustered_boxes(rng, 2)
        a, b = pair
        w, h = np.minimum(a, b)[2:] - np.maximum(a, b)[:2]
        if w <= 0 or h <= 0:
            continue
        areas = (pair[:, 2] - pair[:, 0]) * (pair[:, 3] - pair[:, 1])
        iou = w * h / ((areas[0] + areas[1]) - w * h)
        for threshold in (np.nextafter(iou, F32(0)), iou, np.nextafter(iou, F32(1))):
            expected = reference(pair, np.array([1, 0], F32), None, threshold, 2, F32)
            got = _core.nms(pair, np.array([1, 0], F32), None, threshold, 2)
            assert got.tolist() == expected
            decisions.append(len(expected))
    assert decisions.count(1) > 1000
    assert decisions.count(2) > 1000


def test_threshold_one_suppresses_nothing() -> None:
    boxes = np.repeat(np.array([[0.1, 0.3, 7.7, 9.9]], F32), 5, axis=0)
    assert _core.nms(boxes, np.ones(5, F32), None, 1.0, 10).tolist() == [0, 1, 2, 3, 4]


def test_points_neither_suppress_nor_are_suppressed() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]], F32)
    assert _core.nms(boxes, np.array([3, 2, 1], F32), None, 0.0, 10).tolist() == [0, 1, 2]


def test_signed_zero_scores_tie() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 9]], F32)
    assert _core.nms(boxes, np.array([-0.0, 0.0], F32), None, 0.5, 10).tolist() == [0]
    assert _core.nms(boxes, np.array([0.0, -0.0], F32), None, 0.5, 10).tolist() == [0]


def test_max_candidates_visits_only_the_best() -> None:
    rng = np.random.default_rng(5)
    boxes, scores = integer_boxes(rng, 200), rng.choice(np.linspace(0, 1, 9, dtype=F32), 200)
    best = np.lexsort((np.arange(200), -scores))[:37]
    best.sort()
    expected = best[_core.nms(boxes[best], scores[best], None, 0.25, 200)]
    got = _core.nms(boxes, scores, None, 0.25, 200, max_candidates=37)
    assert got.tolist() == expected.tolist()


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 70))
def test_the_order_of_the_arrays_does_not_matter_with_a_source_index(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, scores = integer_boxes(rng, n), rng.choice(np.array([0.25, 0.5, 1], F32), n)
    class_ids = rng.integers(0, 3, n).astype(np.int32)
    expected = _core.nms(boxes, scores, class_ids, 0.25, 50)
    mixed = rng.permutation(n)
    source = (7 * mixed + 3).astype(np.int32)
    got = _core.nms(boxes[mixed], scores[mixed], class_ids[mixed], 0.25, 50, source_index=source)
    assert mixed[got].tolist() == expected.tolist()


def test_survivors_do_not_suppress_each_other() -> None:
    rng = np.random.default_rng(2)
    boxes, scores = clustered_boxes(rng, 400), rng.random(400).astype(F32)
    kept = _core.nms(boxes, scores, None, 0.45, 400)
    assert 20 < len(kept) < 400
    again = _core.nms(boxes[kept], scores[kept], None, 0.45, 400)
    assert again.tolist() == list(range(len(kept)))


def test_a_batch_equals_its_images() -> None:
    rng = np.random.default_rng(3)
    boxes = np.stack([clustered_boxes(rng, 60) for _ in range(6)])
    scores = rng.random((6, 60)).astype(F32)
    class_ids = rng.integers(0, 4, (6, 60)).astype(np.int32)
    counts = np.array([0, 1, 60, 33, 999, -5], np.int32)
    kept, kept_counts = _core.nms_batched(boxes, scores, class_ids, counts, 0.3, 20)
    assert kept.shape == (6, 20)
    for image, count in enumerate(np.clip(counts, 0, 60)):
        part = slice(0, count)
        expected = _core.nms(
            boxes[image, part], scores[image, part], class_ids[image, part], 0.3, 20
        )
        assert kept_counts[image] == len(expected)
        assert kept[image, : len(expected)].tolist() == expected.tolist()
        assert (kept[image, len(expected) :] == -1).all()


def test_threads_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(4)
    problems = [(clustered_boxes(rng, 900), rng.random(900).astype(F32)) for _ in range(8)]
    expected = [_core.nms(b, s, None, 0.5, 900).tolist() for b, s in problems]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            got = pool.map(lambda p: _core.nms(*p, None, 0.5, 900).tolist(), problems)
            assert list(got) == expected


def test_strided_and_half_precision_views_are_read_right() -> None:
    rng = np.random.default_rng(6)
    boxes, scores = integer_boxes(rng, 80), rng.random(80).astype(np.float16)
    wide = np.full((80, 9), np.nan, F32)
    wide[:, 2:6] = boxes
    expected = reference(boxes, scores.astype(F32), None, 0.25, 80, np.float64)
    assert _core.nms(wide[:, 2:6], scores, None, 0.25, 80).tolist() == expected
    assert nms(wide[::-1][:, 2:6], scores[::-1], iou_threshold=0.25, max_det=80).tolist() == [
        79 - i for i in expected
    ]


def test_public_functions_take_lists_and_wide_types() -> None:
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]
    assert nms(boxes, [0.5, 0.75, 0.1]).tolist() == [1, 2]
    assert nms(boxes, [0.5, 0.75, 0.1], [0, 1, 0]).tolist() == [1, 0, 2]
    kept, counts = nms_batched([boxes], [[0.5, 0.75, 0.1]], counts=[2], max_det=2)
    assert kept.tolist() == [[1, -1]]
    assert counts.tolist() == [1]
    far = np.array([[0, 0, 1e39, 1], [0, 0, 1, 1]])
    assert nms(far, np.array([1.0, 0.5])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros((3, 5), F32), np.zeros(3, F32)), r"boxes must have shape \[n, 4\].*\(3, 5\)"),
        ((np.zeros(4, F32), np.zeros(1, F32)), r"boxes must have shape.*got \(4,\)"),
        ((np.zeros((3, 4), F32), np.zeros(2, F32)), r"scores must have shape.*got \(2,\)"),
        ((np.zeros((3, 4), F32), np.zeros(3, F32), np.zeros(4, np.int32)), "class_ids must"),
        ((np.zeros((3, 4), F32), np.zeros(3, F32), [0.5, 1, 2]), "whole numbers"),
        ((np.zeros((3, 4), F32), np.zeros(3, F32), [2**40, 1, 2]), "whole numbers"),
        ((np.zeros((3, 4), F32), np.zeros(3, F32), [np.nan, 1, 2]), "whole numbers"),
        (([["a"] * 4], [1.0]), "boxes of numbers"),
        (([[0, 0, 1, 1], [0, 0, 1]], [1.0, 2.0]), "boxes as one array"),
    ],
)
def test_wrong_arrays_are_refused_in_words(arguments: tuple[object, ...], words: str) -> None:
    with pytest.raises(InputDataError, match=words):
        nms(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iou_threshold": -0.1}, "iou_threshold"),
        ({"iou_threshold": 1.5}, "iou_threshold"),
        ({"iou_threshold": float("nan")}, "iou_threshold"),
        ({"max_det": 0}, "max_det"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(InputDataError, match=words):
        nms(np.zeros((2, 4), F32), np.zeros(2, F32), **options)  # type: ignore[arg-type]
    with pytest.raises(InputDataError, match=words):
        nms_batched(np.zeros((1, 2, 4), F32), np.zeros((1, 2), F32), **options)  # type: ignore[arg-type]


def test_the_extension_never_narrows_silently() -> None:
    with pytest.raises(TypeError):
        _core.nms(np.zeros((2, 4)), np.zeros(2, F32), None, 0.5, 10)
