"""Decoders against NumPy references that share no code with them.

Scores of "none" heads and their order must be equal; products are float32, as documented. Boxes
are compared with float64: each tolerance counts the float32 roundings of its formula.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from visionrt import _core

F32 = np.float32
ROUNDING = 2.0**-24  # relative error of one float32 operation
Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def passing(
    class_scores: np.ndarray, ranking: np.ndarray, threshold: float, multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(anchors, classes) that pass, ascending. `ranking` decides the best class of an anchor."""
    with np.errstate(invalid="ignore"):
        passes = class_scores > F32(threshold)
    if not multi_label:
        best = np.where(np.isnan(ranking), -np.inf, ranking).argmax(axis=1)
        only = np.zeros_like(passes)
        only[np.arange(len(best)), best] = True
        passes &= only
    return np.nonzero(passes)


def check(found: Found, anchors: np.ndarray, classes: np.ndarray, scores: np.ndarray) -> None:
    boxes, got_scores, got_classes, got_anchors = found
    assert boxes.dtype == got_scores.dtype == F32
    assert got_classes.dtype == got_anchors.dtype == np.int32
    assert boxes.shape == (len(anchors), 4)
    assert got_anchors.tolist() == anchors.tolist()
    assert got_classes.tolist() == classes.tolist()
    np.testing.assert_array_equal(got_scores, scores[anchors, classes])


def sparse_scores(rng: np.random.Generator, n: int, classes: int) -> np.ndarray:
    """Mostly low, some high, ties, NaN and values that equal the threshold 0.25."""
    scores = rng.random((n, classes)) ** 6
    scores[rng.random((n, classes)) < 0.03] = 0.25
    scores[rng.random((n, classes)) < 0.03] = 0.75
    scores[rng.random((n, classes)) < 0.02] = np.nan
    return scores.astype(F32)


def center_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    return np.concatenate(
        [rng.uniform(-30, 700, (n, 2)), rng.uniform(-1, 400, (n, 2))], axis=1
    ).astype(F32)


def corners(cx: np.ndarray, cy: np.ndarray, w: np.ndarray, h: np.ndarray) -> np.ndarray:
    return np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=-1)


def layout(
    form: str,
    boxes: np.ndarray,
    scores: np.ndarray,
    objectness: np.ndarray,
    extra: int,
) -> np.ndarray:
    parts = [boxes, scores, np.full((len(boxes), extra), 9, F32)]
    if form == "v5":
        parts.insert(1, objectness[:, None])
    rows = np.concatenate(parts, axis=1)
    return np.ascontiguousarray(rows.T) if form == "v8" else rows


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5"])
@pytest.mark.parametrize(
    ("n", "classes", "extra"),
    [(0, 3, 0), (1, 1, 0), (7, 2, 0), (1023, 5, 1), (1025, 17, 0), (2100, 80, 32), (50, 16, 51)],
)
def test_yolo(n: int, classes: int, extra: int, form: str, multi_label: bool) -> None:
    rng = np.random.default_rng([n, classes, multi_label])
    boxes, scores = center_boxes(rng, n), sparse_scores(rng, n, classes)
    objectness = np.where(rng.random(n) < 0.1, np.nan, rng.random(n) ** 0.3).astype(F32)
    output = layout(form, boxes, scores, objectness, extra)
    found = _core.decode_yolo(output, form, classes, 0.25, multi_label, 10**6)

    final = scores
    if form == "v5":
        with np.errstate(invalid="ignore"):
            final = np.where(objectness[:, None] > F32(0.25), objectness[:, None] * scores, F32(-1))
    anchors, labels = passing(final, scores, 0.25, multi_label)
    check(found, anchors, labels, final)
    exact = corners(*boxes[anchors].astype(np.float64).T)
    # One subtraction, and one exact halving.
    tolerance = ROUNDING * np.abs(exact) + 1e-30
    assert (np.abs(found[0] - exact) <= tolerance).all()


def test_yolo_scores_at_the_threshold_and_nan_do_not_pass() -> None:
    output = np.array([[1, 1, 2, 2, s] for s in (0.5, 0.5000001, np.nan, np.inf, -1)], F32)
    _, scores, _, anchors = _core.decode_yolo(output, "v8_rows", 1, 0.5)
    assert anchors.tolist() == [1, 3]
    assert scores[1] == np.inf


def test_yolo_ties_go_to_the_lower_class() -> None:
    row = np.array([[5, 5, 4, 4, 0.1, 0.9, np.nan, 0.9]], F32)
    for form, output in (("v8_rows", row), ("v8", row.T)):
        assert _core.decode_yolo(output, form, 4, 0.3)[2].tolist() == [1]


def test_half_precision_outputs_are_widened() -> None:
    row = np.array([[5, 5, 4, 4, 0.5]], np.float16)
    assert _core.decode_yolo(row, "v8_rows", 1, 0.25)[0].tolist() == [[3, 3, 7, 7]]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("limit", [1, 10, 333])
def test_max_candidates_keeps_the_best_in_order(limit: int, multi_label: bool) -> None:
    rng = np.random.default_rng(limit)
    output = layout("v8", center_boxes(rng, 3000), sparse_scores(rng, 3000, 9), np.zeros(0), 0)
    every = _core.decode_yolo(output, "v8", 9, 0.2, multi_label)
    few = _core.decode_yolo(output, "v8", 9, 0.2, multi_label, limit)
    assert len(every[1]) > limit
    best = np.sort(np.lexsort((np.arange(len(every[1])), -every[1]))[:limit])
    for all_values, some_values in zip(every, few, strict=True):
        np.testing.assert_array_equal(some_values, all_values[best])


@pytest.mark.parametrize("limit", [1, 5, 150, 299])
def test_max_candidates_cuts_ties_by_anchor_then_class(limit: int) -> None:
    rng = np.random.default_rng(limit)
    scores = rng.choice(np.array([0.1, 0.5, 0.75], F32), (100, 9))
    output = layout("v8_rows", center_boxes(rng, 100), scores, np.zeros(0), 0)
    every = _core.decode_yolo(output, "v8_rows", 9, 0.2, True)
    few = _core.decode_yolo(output, "v8_rows", 9, 0.2, True, limit)
    best = np.sort(np.lexsort((np.arange(len(every[1])), -every[1]))[:limit])
    assert few[3].tolist() == every[3][best].tolist()
    assert few[2].tolist() == every[2][best].tolist()


@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5"])
def test_anchors_of_nan_classes_only_give_nothing(form: str) -> None:
    nan = np.full((3, 4), np.nan, F32)
    output = layout(form, np.ones((3, 4), F32), nan, np.full(3, -1, F32), 0)
    for multi_label in (False, True):
        assert len(_core.decode_yolo(output, form, 4, -2, multi_label)[1]) == 0


def exp_tolerance(code: np.ndarray) -> np.ndarray:
    """Relative: the polynomial and its reduction, two units, and the rounding of the exponent."""
    return ROUNDING * (6 + np.abs(code))


def test_exponential_over_the_whole_range() -> None:
    codes = np.concatenate(
        [np.linspace(-110, 95, 200_001), np.linspace(-1, 1, 100_001), [-np.inf, 0, -0.0, 1]]
    ).astype(F32)
    n = len(codes)
    output = np.ones((n, 6), F32)
    output[:, 0] = -np.arange(n)  # the centre of every box is 0, so x2 is half the width
    output[:, 2] = codes
    boxes, *_ = _core.decode_yolox(output, (1, n), 1, 0.5, [1], max_candidates=n)
    with np.errstate(over="ignore"):
        exact = np.exp(codes.astype(np.float64))
    half = boxes[:, 2].astype(np.float64)
    fits = exact < 2.0**128 * (1 - 1e-6)
    assert np.isposinf(half[exact > 2.0**128]).all()
    # Below the normal numbers the error is half a unit of 2^-149, doubled by the halving.
    error = np.abs(2 * half[fits] - exact[fits])
    assert (error <= exact[fits] * 2.0**-23 * 1.5 + 2.0**-148).all()
    assert (half[codes == 0] == 0.5).all()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    ("input_hw", "strides", "classes"),
    [((64, 96), (8, 16, 32), 80), ((32, 32), (8, 16, 32), 1), ((50, 70), (7, 64), 3)],
)
def test_yolox(
    input_hw: tuple[int, int], strides: tuple[int, ...], classes: int, multi_label: bool
) -> None:
    rng = np.random.default_rng(classes)
    cells = [
        (x, y, s) for s in strides for y in range(input_hw[0] // s) for x in range(input_hw[1] // s)
    ]
    grid = np.array(cells, np.float64)
    n = len(grid)
    codes = np.concatenate([rng.uniform(-1, 2, (n, 2)), rng.uniform(-2, 4, (n, 2))], axis=1).astype(
        F32
    )
    scores = sparse_scores(rng, n, classes)
    objectness = rng.random(n).astype(F32) ** 0.2
    output = layout("v5", codes, scores, objectness, 0)
    found = _core.decode_yolox(output, input_hw, classes, 0.25, list(strides), multi_label)

    final = np.where(objectness[:, None] > F32(0.25), objectness[:, None] * scores, F32(-1))
    anchors, labels = passing(final, scores, 0.25, multi_label)
    assert len(anchors) > 0
    check(found, anchors, labels, final)
    code, cell = codes[anchors].astype(np.float64), grid[anchors]
    center = (code[:, :2] + cell[:, :2]) * cell[:, 2:]
    size = np.exp(code[:, 2:]) * cell[:, 2:]
    exact = corners(*center.T, *size.T)
    magnitude = np.tile(np.abs(center) * 3 + size * (2 + exp_tolerance(code[:, 2:]) / ROUNDING), 2)
    assert (np.abs(found[0] - exact) <= ROUNDING * magnitude).all()


def ssd_scores(logits: np.ndarray, activation: str) -> np.ndarray:
    x = logits.astype(np.float64)
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if activation == "softmax":
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
    return x


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
@pytest.mark.parametrize("background", [-1, 0, 3])
@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.9])
def test_ssd(threshold: float, background: int, activation: str, multi_label: bool) -> None:
    rng = np.random.default_rng([background + 1, int(threshold * 100)])
    n, classes = 1917, 12
    codes = rng.normal(0, 3, (n, 4)).astype(F32)
    priors = np.concatenate([rng.random((n, 2)), rng.uniform(0.02, 0.9, (n, 2))], axis=1).astype(
        F32
    )
    logits = rng.normal(-3, 3, (n, classes)).astype(F32)
    # float32 and float64 may disagree on a score at the threshold: leave none there.
    near = np.abs(ssd_scores(logits, activation) - threshold) < 1e-5
    logits[near.any(axis=1)] = -30
    variances = (10.0, 10.0, 5.0, 5.0)
    found = _core.decode_ssd(
        codes,
        logits,
        priors,
        (300, 200),
        threshold,
        variances,
        activation,
        background,
        multi_label,
    )

    exact_scores = ssd_scores(logits, activation)
    foreground = (
        np.delete(np.arange(classes), background) if background >= 0 else np.arange(classes)
    )
    anchors, columns = passing(
        exact_scores[:, foreground], logits[:, foreground], threshold, multi_label
    )
    labels = foreground[columns]
    assert len(anchors) > 20
    boxes, scores, got_labels, got_anchors = found
    assert got_anchors.tolist() == anchors.tolist()
    assert got_labels.tolist() == labels.tolist()
    # Subtraction and exp, a serial sum of `classes` terms, one division. Logits are below 32.
    relative = ROUNDING * (32 + 6 + classes + 2)
    exact = exact_scores[anchors, labels]
    assert (np.abs(scores - exact) <= relative * exact).all()

    code, prior = codes[anchors].astype(np.float64), priors[anchors].astype(np.float64)
    center = code[:, :2] / 10 * prior[:, 2:] + prior[:, :2]
    size = np.exp(code[:, 2:] / 5) * prior[:, 2:]
    exact_boxes = corners(center[:, 1], center[:, 0], size[:, 1], size[:, 0])
    exact_boxes *= np.array([200, 300, 200, 300])
    parts = np.abs(code[:, :2] / 10 * prior[:, 2:]) + np.abs(prior[:, :2]) + size
    magnitude = parts[:, [1, 0, 1, 0]] * np.array([200, 300, 200, 300])
    assert (np.abs(boxes - exact_boxes) <= ROUNDING * 16 * magnitude).all()


def test_ssd_codes_that_begin_with_x_are_those_that_begin_with_y() -> None:
    rng = np.random.default_rng(5)
    codes, priors = rng.normal(0, 3, (300, 4)).astype(F32), rng.random((300, 4)).astype(F32)
    scores = rng.random((300, 3)).astype(F32)
    arguments = (priors, (30, 50), 0.5, (10, 9, 5, 4))
    for wanted, got in zip(
        _core.decode_ssd(codes, scores, *arguments),
        _core.decode_ssd(codes[:, [1, 0, 3, 2]], scores, *arguments, code="xywh"),
        strict=True,
    ):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_ssd_nan_scores_do_not_pass(activation: str, multi_label: bool) -> None:
    logits = np.array([[0, np.nan, 5], [0, np.nan, np.nan], [np.nan, 5, -9], [0, 9, -9]], F32)
    zeros = np.zeros((4, 4), F32)
    _, scores, labels, anchors = _core.decode_ssd(
        zeros, logits, zeros, (10, 10), 0.5, activation=activation, multi_label=multi_label
    )
    pairs = list(zip(anchors.tolist(), labels.tolist(), strict=True))
    # A softmax over a NaN is NaN; without it the NaN touches its own class only.
    assert pairs == ([(3, 1)] if activation == "softmax" else [(0, 2), (2, 1), (3, 1)])
    assert not np.isnan(scores).any()


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_ssd_skips_nothing_that_passes_near_the_threshold(activation: str) -> None:
    # The cheap test on raw scores must agree with the activation it stands for.
    for threshold in (1e-6, 0.01, 0.5, 0.999, 0.999999, float(np.nextafter(F32(1), F32(0)))):
        logit = np.log(threshold / (1 - threshold))
        foreground = (logit + np.linspace(-0.01, 0.01, 4001)).astype(F32)
        logits = np.stack([np.zeros_like(foreground), foreground], axis=1)
        codes = np.zeros((len(logits), 4), F32)
        arguments = (codes, logits, codes, (8, 8))
        every = _core.decode_ssd(*arguments, -1.0, activation=activation)
        some = _core.decode_ssd(*arguments, threshold, activation=activation)
        expected = every[3][every[1] > F32(threshold)]
        assert len(every[3]) == len(logits)
        assert some[3].tolist() == expected.tolist()


def test_ssd_background_only_gives_nothing() -> None:
    one = np.ones((3, 1), F32)
    boxes = np.ones((3, 4), F32)
    assert len(_core.decode_ssd(boxes, one, boxes, (8, 8), 0.1)[1]) == 0
    assert len(_core.decode_ssd(boxes, one, boxes, (8, 8), 0.1, background=-1)[1]) == 3


ROWS = np.zeros((84, 6), F32)
FOUR = np.zeros((2, 4), F32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: _core.decode_yolo(ROWS, "v9", 1, 0.5), 'form must be "v8".*got "v9"'),
        (lambda: _core.decode_yolo(ROWS[0], "v8", 1, 0.5), r"\[columns, anchors\].*got \(6,\)"),
        (lambda: _core.decode_yolo(ROWS, "v8_rows", 3, 0.5), r"4 \+ 3 columns or more, got 6"),
        (lambda: _core.decode_yolo(ROWS, "v8", 81, 0.5), r"4 \+ 81 columns or more, got 84"),
        (lambda: _core.decode_yolo(ROWS, "v8", 0, 0.5), "num_classes must be 1 or more, got 0"),
        (lambda: _core.decode_yolo(ROWS, "v8", 80, np.nan), "score_threshold must be a number"),
        (lambda: _core.decode_yolo(ROWS, "v8", 80, 0.5, False, 0), "max_candidates must be 1"),
        (lambda: _core.decode_yolox(ROWS, (64, 65), 1, 0.5, [8]), "64 anchors.*64x65.*has 84"),
        (lambda: _core.decode_yolox(ROWS, (64, 64), 1, 0.5, []), "strides must hold 1 to 8"),
        (lambda: _core.decode_yolox(ROWS, (64, 64), 1, 0.5, [0]), "stride must be 1 or more"),
        (lambda: _core.decode_yolox(ROWS, (0, 64), 1, 0.5), "input_hw must be positive"),
        (lambda: _core.decode_ssd(FOUR, FOUR, ROWS, (8, 8), 0.5), r"anchors must have.*\(84, 6\)"),
        (lambda: _core.decode_ssd(ROWS, FOUR, FOUR, (8, 8), 0.5), r"box_codes must.*\(84, 6\)"),
        (
            lambda: _core.decode_ssd(FOUR, FOUR, FOUR, (8, 8), 0.5, background=4),
            "background must be -1",
        ),
        (
            lambda: _core.decode_ssd(FOUR, FOUR, FOUR, (8, 8), 0.5, (1, 1, 0, 1)),
            "variances must be positive",
        ),
        (
            lambda: _core.decode_ssd(FOUR, FOUR, FOUR, (8, 8), 0.5, activation="tanh"),
            "activation must be",
        ),
        (
            lambda: _core.decode_ssd(FOUR, FOUR, FOUR, (8, 8), 0.5, code="hwyx"),
            'code must be "yxhw" or "xywh", got "hwyx"',
        ),
    ],
)
def test_wrong_arguments_are_refused_in_words(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]


def test_order_is_anchor_then_class() -> None:
    rng = np.random.default_rng(0)
    output = layout("v8", center_boxes(rng, 500), sparse_scores(rng, 500, 7), np.zeros(0), 0)
    _, _, classes, anchors = _core.decode_yolo(output, "v8", 7, 0.1, True)
    source = (anchors * 7 + classes).tolist()
    assert all(a < b for a, b in pairwise(source))
