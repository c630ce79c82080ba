"""Heads on outputs made by hand, whose result is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visionrt.errors import ModelError, UsageError
from visionrt.heads import Frame, head_for, ssd_anchors
from visionrt.manifest import TensorInfo
from visionrt.options import options_for
from visionrt.preprocess import Preprocessor
from visionrt.recipe import HEADS_BY_TASK, Recipe
from visionrt.spec import PreprocessSpec

RNG = np.random.default_rng(5)
SIZE = (64, 96)
TASK_OF = {head: task for task, heads in HEADS_BY_TASK.items() for head in heads}


def recipe_of(
    head: str, *, labels: tuple[str, ...] = (), spec: Any = None, **options: Any
) -> Recipe:
    spec = spec or PreprocessSpec(size=SIZE)
    return Recipe(TASK_OF[head], head, spec, labels, head_options=options)


def infos(outputs: dict[str, np.ndarray]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(n, a.dtype.name, a.shape) for n, a in outputs.items())


def frame_of(recipe: Recipe, height: int = SIZE[0], width: int = SIZE[1]) -> Frame:
    return Frame((height, width), Preprocessor(recipe.preprocess).geometry(height, width))


def decode(
    recipe: Recipe, outputs: dict[str, np.ndarray], *frames: Frame, **options: Any
) -> list[Any]:
    head = head_for(recipe, infos(outputs))
    frames = frames or (frame_of(recipe),)
    return list(head.decode(outputs, frames, options_for(recipe, **options)))


# Classifier


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits.astype(np.float64) - logits.max())
    return shares / shares.sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("tail", [(), (1, 1)])
def test_classifier_of_a_batch(dtype: Any, tail: tuple[int, ...]) -> None:
    logits = RNG.normal(0, 3, (2, 10)).astype(dtype)
    recipe = recipe_of("classifier", labels=tuple("abcdefghij"))
    frame = frame_of(recipe)
    for row, result in zip(
        logits, decode(recipe, {"y": logits.reshape(2, 10, *tail)}, frame, frame), strict=True
    ):
        order = np.argsort(-row.astype(np.float64))[:5]
        assert result.class_id.tolist() == order.tolist()
        np.testing.assert_allclose(result.confidence, softmax(row)[order], rtol=1e-6)
        np.testing.assert_array_equal(result.logits, row.astype(np.float32))
        assert result.best == "abcdefghij"[order[0]]


def test_classifier_drops_a_background_class_after_the_softmax() -> None:
    logits = np.array([[5, 1, 3]], np.float32)
    (result,) = decode(recipe_of("classifier", offset=1), {"y": logits})
    assert result.class_id.tolist() == [1, 0]
    np.testing.assert_allclose(result.confidence, softmax(logits[0])[[2, 1]], rtol=1e-6)
    assert result.logits.tolist() == [1, 3]


def test_classifier_activations_and_filters() -> None:
    scores = {"y": np.array([[-100, 0.5, 0.3, 100]], np.float32)}
    (none,) = decode(recipe_of("classifier", activation="none"), scores, top_k=2)
    assert none.confidence.tolist() == [100, 0.5]
    (sigmoid,) = decode(recipe_of("classifier", activation="sigmoid"), scores)
    expected = 1 / (1 + np.exp(-scores["y"][0, [3, 1, 2, 0]].astype(np.float64)))
    np.testing.assert_allclose(sigmoid.confidence, expected, rtol=1e-6, atol=1e-40)
    (some,) = decode(recipe_of("classifier"), scores, classes=[1, 2, 999])
    assert some.class_id.tolist() == [1, 2]
    (sure,) = decode(recipe_of("classifier", activation="none"), scores, confidence=0.4)
    assert sure.class_id.tolist() == [3, 1]


def test_classifier_results_outlive_the_output_buffer() -> None:
    scores = {"y": np.ones((1, 4), np.float32)}
    (result,) = decode(recipe_of("classifier"), scores)
    scores["y"][:] = 7
    assert result.logits.tolist() == [1] * 4


# Boxes


def letterboxed(frame: Frame, xyxy: np.ndarray) -> np.ndarray:
    """Image pixels to tensor pixels, by the definition of the letterbox."""
    (height, width), (tensor_h, tensor_w) = frame.image_hw, SIZE
    scale = min(tensor_h / height, tensor_w / width)
    resized = round(height * scale), round(width * scale)
    offset = (tensor_w - resized[1]) // 2, (tensor_h - resized[0]) // 2
    scales = np.array([resized[1] / width, resized[0] / height] * 2)
    return xyxy * scales + np.array(offset * 2)


BOXES = np.array([[10, 8, 50, 40], [60, 20, 90, 70], [12, 9, 52, 41]], np.float64)
SCORES = np.array([0.9, 0.6, 0.7])
CLASSES = np.array([2, 0, 2])


def yolo_rows(frame: Frame, *, objectness: bool, classes: int = 3) -> np.ndarray:
    tensor = letterboxed(frame, BOXES)
    rows = np.zeros((40, 4 + objectness + classes), np.float32)
    at = [5, 17, 33]
    rows[at, :2] = (tensor[:, :2] + tensor[:, 2:]) / 2
    rows[at, 2:4] = tensor[:, 2:] - tensor[:, :2]
    if objectness:
        rows[at, 4] = 0.95
    rows[at, 4 + objectness + CLASSES] = SCORES
    return rows


@pytest.mark.parametrize("form", ["v8", "v8_rows", "v5"])
@pytest.mark.parametrize("image_hw", [(80, 100), (300, 120), (64, 96)])
def test_yolo(form: str, image_hw: tuple[int, int]) -> None:
    recipe = recipe_of("yolo", labels=("cat", "dog", "owl"), form=form)
    frame = frame_of(recipe, *image_hw)
    rows = yolo_rows(frame, objectness=form == "v5")
    output = {"y": (rows.T if form == "v8" else rows)[None]}
    (result,) = decode(recipe, output, frame)
    # The third box overlaps the first one, of its class.
    assert result.class_id.tolist() == [2, 0]
    sure = 0.95 if form == "v5" else 1
    np.testing.assert_allclose(result.confidence, SCORES[:2] * sure, rtol=1e-6)
    # Some roundings of float32 at coordinates up to 100, stretched by up to 300 / 64.
    limit = np.array([image_hw[1], image_hw[0]] * 2)
    np.testing.assert_allclose(result.xyxy, np.clip(BOXES[:2], 0, limit), atol=1e-3)
    assert [row.name for row in result] == ["owl", "cat"]


def test_yolo_filters() -> None:
    recipe = recipe_of("yolo", labels=("cat", "dog", "owl"))
    frame = frame_of(recipe, 80, 100)
    output = {"y": yolo_rows(frame, objectness=False).T[None]}
    assert decode(recipe, output, frame, confidence=0.65)[0].class_id.tolist() == [2]
    assert decode(recipe, output, frame, confidence=1)[0].xyxy.shape == (0, 4)
    assert decode(recipe, output, frame, iou=1)[0].class_id.tolist() == [2, 2, 0]
    assert decode(recipe, output, frame, max_det=1)[0].class_id.tolist() == [2]
    assert decode(recipe, output, frame, classes=["cat"])[0].class_id.tolist() == [0]
    assert len(decode(recipe, output, frame, classes=[])[0]) == 0


@pytest.mark.parametrize("agnostic", [False, True])
def test_classes_suppress_each_other_only_when_the_recipe_says_so(agnostic: bool) -> None:
    recipe = Recipe("detect", "yolo", PreprocessSpec(size=SIZE), class_agnostic=agnostic)
    output = np.zeros((1, 6, 2), np.float32)
    output[0, :4] = [[40], [30], [20], [10]]
    output[0, 4:] = [[0.9, 0], [0, 0.8]]
    (result,) = decode(recipe, {"y": output})
    assert result.class_id.tolist() == ([0] if agnostic else [0, 1])
    # A class that is not wanted suppresses nothing either.
    (wanted,) = decode(recipe, {"y": output}, classes=[1])
    assert wanted.class_id.tolist() == [1]


def test_yolo_clips_and_leaves_out_boxes_that_overflowed() -> None:
    recipe = recipe_of("yolo")
    output = np.zeros((1, 5, 3), np.float16)
    output[0, :, 0] = [48, 32, 500, 500, 0.9]
    output[0, :, 1] = [np.inf, 32, 5, 5, 0.8]
    output[0, :, 2] = [np.nan, 32, 5, 5, 0.7]
    (result,) = decode(recipe, {"y": output})
    assert result.xyxy.tolist() == [[0, 0, SIZE[1], SIZE[0]]]


def test_yolox() -> None:
    spec = PreprocessSpec.parse("yolox,size=64x96")
    recipe = recipe_of("yolox", labels=("a", "b"), spec=spec)
    cells = [(s, y, x) for s in (8, 16, 32) for y in range(64 // s) for x in range(96 // s)]
    rows = np.zeros((len(cells), 7), np.float32)
    boxes = []
    for i, class_id in ((3, 0), (100, 1), (len(cells) - 1, 1)):
        stride, y, x = cells[i]
        rows[i] = [0.25, 0.5, np.log(1.5), np.log(0.75), 0.8, 0, 0]
        rows[i, 5 + class_id] = 0.9 - i / 1000
        center = np.array([(x + 0.25) * stride, (y + 0.5) * stride])
        half = np.array([1.5, 0.75]) * stride / 2
        boxes.append(np.concatenate((center - half, center + half)))
    # A top left letterbox at scale 1/2.
    (result,) = decode(recipe, {"y": rows[None]}, frame_of(recipe, 128, 150), iou=1)
    assert result.class_id.tolist() == [0, 1, 1]
    np.testing.assert_allclose(
        result.confidence, [0.8 * (0.9 - i / 1000) for i in (3, 100, len(cells) - 1)], rtol=1e-6
    )
    expected = np.clip(np.array(boxes) * 2, 0, [150, 128, 150, 128])
    np.testing.assert_allclose(result.xyxy, expected, atol=1e-3)


def zoo_anchors() -> np.ndarray:
    """The zoo's 1,917 anchors, one by one, from the words of its documentation."""
    scales = [*np.linspace(0.2, 0.95, 6).tolist(), 1.0]
    out = []
    for i, side in enumerate((19, 10, 5, 3, 2, 1)):
        pairs = [(scales[i], r) for r in (1, 2, 0.5, 3, 0.3333)]
        pairs.append((np.sqrt(scales[i] * scales[i + 1]), 1))
        if i == 0:
            pairs = [(0.1, 1), (0.2, 2), (0.2, 0.5)]
        for row in range(side):
            for column in range(side):
                for scale, ratio in pairs:
                    width, height = scale * np.sqrt(ratio), scale / np.sqrt(ratio)
                    out.append([(row + 0.5) / side, (column + 0.5) / side, height, width])
    return np.array(out)


def test_the_preset_anchors() -> None:
    anchors = ssd_anchors.tf_ssd_300()
    assert anchors.shape == (1917, 4)
    # One rounding to float32 of values up to about 1.7.
    np.testing.assert_allclose(anchors, zoo_anchors(), atol=2**-24 * 2)


@pytest.mark.parametrize("activation", ["none", "sigmoid", "softmax"])
def test_ssd(activation: str) -> None:
    spec = PreprocessSpec(resize="stretch", size=(300, 300))
    anchors = zoo_anchors()
    options = {"anchors": "tf_ssd_300", "activation": activation}
    recipe = recipe_of("ssd", labels=("background", "cat", "dog"), spec=spec, **options)
    wanted = np.array([[40, 30, 200, 180], [300, 200, 390, 290]]) / [400, 300, 400, 300]
    at, class_ids, shares = [100, 1500], [2, 1], np.array([0.9, 0.8])
    codes, scores = np.zeros((1, 1917, 4), np.float32), np.zeros((1, 1917, 3))
    scores[..., 0] = 1
    for i, (x0, y0, x1, y1) in zip(at, wanted, strict=True):
        cy, cx, h, w = anchors[i]
        codes[0, i] = [
            ((y0 + y1) / 2 - cy) / h * 10,
            ((x0 + x1) / 2 - cx) / w * 10,
            np.log((y1 - y0) / h) * 5,
            np.log((x1 - x0) / w) * 5,
        ]
    scores[0, at] = 0
    scores[0, at, class_ids] = shares
    scores[0, at, 0] = 1 - shares
    with np.errstate(divide="ignore"):
        if activation == "sigmoid":
            scores = np.clip(np.log(scores / (1 - scores)), -50, 50)
        elif activation == "softmax":
            scores = np.clip(np.log(scores), -50, 0)
    outputs = {"codes": codes, "scores": scores.astype(np.float32)}
    (result,) = decode(recipe, outputs, frame_of(recipe, 300, 400))
    assert result.class_id.tolist() == class_ids
    np.testing.assert_allclose(result.confidence, shares, rtol=1e-5)
    # float32 codes of up to about 20 behind an exponential, at up to 400 pixels.
    np.testing.assert_allclose(result.xyxy, wanted * [400, 300, 400, 300], atol=5e-3)


def test_ssd_anchor_forms() -> None:
    from visionrt.heads.ssd import anchors_from

    rows = [[0.5, 0.5, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4]]
    np.testing.assert_allclose(anchors_from(recipe_of("ssd", anchors=rows)), rows, rtol=1e-7)
    sides = [[19, 19], [10, 10], [5, 5], [3, 3], [2, 2], [1, 1]]
    grids = {
        "feature_maps": sides,
        "scales": [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0],
        "ratios": [1, 2, 0.5, 3, 0.3333],
        "reduce_lowest": True,
    }
    np.testing.assert_allclose(
        anchors_from(recipe_of("ssd", anchors=grids)), zoo_anchors(), atol=1e-6
    )
    for bad in (None, "yolo", [], [[1, 2, 3]], {"feature_maps": sides}, {"a": 1}, 3, [["x"] * 4]):
        with pytest.raises(UsageError, match="anchors"):
            anchors_from(recipe_of("ssd", anchors=bad))


# Segmentation


def reference_sample(
    plane: np.ndarray, frame: Frame, spec: PreprocessSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear samples at the image's pixel centres, and where the model did not look."""
    g, (height, width) = frame.geometry, frame.image_hw
    coordinates, seen = [], []
    for length, offset, scale, resized, tensor, grid in (
        (height, g.offset_y, g.scale_y, g.resized_h, spec.size[0], plane.shape[0]),
        (width, g.offset_x, g.scale_x, g.resized_w, spec.size[1], plane.shape[1]),
    ):
        position = [(i + 0.5) / scale + offset for i in range(length)]
        seen.append(np.array([0 <= p <= tensor for p in position]))
        # Only cells whose centres lie on the image.
        step = tensor / grid
        low, high = max(offset, 0), min(offset + resized, tensor)
        centers = [i for i in range(grid) if low <= (i + 0.5) * step <= high]
        coordinates.append([np.clip(p / step - 0.5, centers[0], centers[-1]) for p in position])
    out = np.empty((height, width))
    for i, y in enumerate(coordinates[0]):
        for j, x in enumerate(coordinates[1]):
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
            top = plane[y0, x0] * (1 - x + x0) + plane[y0, x1] * (x - x0)
            low = plane[y1, x0] * (1 - x + x0) + plane[y1, x1] * (x - x0)
            out[i, j] = top * (1 - y + y0) + low * (y - y0)
    return out, ~(seen[0][:, None] & seen[1])


SPECS = [
    PreprocessSpec(size=SIZE),
    PreprocessSpec(size=SIZE, letterbox_align="top_left"),
    PreprocessSpec(resize="stretch", size=SIZE),
    PreprocessSpec(resize="crop", size=SIZE, crop_ratio=0.8),
]


@pytest.mark.parametrize("spec", SPECS, ids=["letterbox", "top_left", "stretch", "crop"])
@pytest.mark.parametrize("image_hw", [(33, 47), (90, 20), (1, 1), (130, 200)])
def test_segmentation_is_sampled_back_through_the_geometry(
    spec: PreprocessSpec, image_hw: tuple[int, int]
) -> None:
    recipe = recipe_of("logits", spec=spec)
    frame = frame_of(recipe, *image_hw)
    scores = RNG.normal(0, 2, (1, 3, 16, 24)).astype(np.float32)
    (result,) = decode(recipe, {"y": scores}, frame)
    wide = scores[0].astype(np.float64)
    shares = np.exp(wide) / np.exp(wide).sum(axis=0)
    sampled = [reference_sample(p, frame, spec) for p in wide]
    outside = sampled[0][1]
    stack = np.stack([s for s, _ in sampled])
    expected = np.where(outside, 0, stack.argmax(axis=0))
    ranked = np.sort(stack, axis=0)
    # float32 weights from positions of up to 24 cells, times differences of up to about 16.
    margin = 24 * 16 * 4 * 2**-24
    clear = outside | (ranked[-1] - ranked[-2] > margin)
    assert result.mask.shape == result.confidence.shape == image_hw
    assert result.mask.dtype == np.uint8
    np.testing.assert_array_equal(result.mask[clear], expected[clear])
    at = np.stack([reference_sample(p, frame, spec)[0] for p in shares])
    confidence = np.where(outside, 0, np.take_along_axis(at, expected[None], 0)[0])
    np.testing.assert_allclose(result.confidence[clear], confidence[clear], atol=margin)


@pytest.mark.parametrize("form", ["logits", "probability"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_one_channel_is_compared_with_the_threshold(form: str, layout: str) -> None:
    spec = PreprocessSpec(resize="crop", size=SIZE, crop_ratio=0.8)
    recipe = recipe_of("logits", spec=spec, form=form, layout=layout, threshold=0.3)
    frame = frame_of(recipe, 50, 60)
    plane = RNG.random((16, 24)).astype(np.float32) * (6 if form == "logits" else 1)
    plane -= 4 if form == "logits" else 0
    output = plane[None, None] if layout == "nchw" else plane[None, :, :, None]
    (result,) = decode(recipe, {"y": output}, frame)
    sampled, outside = reference_sample(plane.astype(np.float64), frame, spec)
    share = 1 / (1 + np.exp(-sampled)) if form == "logits" else sampled
    clear = np.abs(share - 0.3) > 1e-4
    expected = ~outside & (share >= 0.3)
    np.testing.assert_array_equal(result.mask[clear], expected[clear])
    confidence = np.where(outside, 0, np.where(expected, share, 1 - share))
    np.testing.assert_allclose(result.confidence[clear], confidence[clear], atol=1e-4)
    assert outside.any()
    assert expected.any()


def test_a_letterbox_border_is_never_read() -> None:
    recipe = recipe_of("logits")
    frame = frame_of(recipe, 96, 96)
    scores = np.zeros((1, 2, 64, 96), np.float32)
    scores[:, 1, :, :16] = scores[:, 1, :, 80:] = 50
    (result,) = decode(recipe, {"y": scores}, frame)
    assert not result.mask.any()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float32])
def test_class_ids_are_sampled_to_the_nearest(dtype: Any) -> None:
    ids = RNG.integers(0, 200, (1, 4, 6)).astype(dtype)
    recipe = recipe_of("logits", spec=PreprocessSpec(resize="stretch", size=SIZE), form="argmax")
    (result,) = decode(recipe, {"y": ids}, frame_of(recipe, 12, 18))
    np.testing.assert_array_equal(result.mask, np.kron(ids[0], np.ones((3, 3))))
    assert result.confidence.min() == 1
    (some,) = decode(recipe, {"y": ids}, classes=[int(ids[0, 0, 0])])
    assert set(np.unique(some.mask)) <= {0, int(ids[0, 0, 0])}


def test_more_than_256_classes_are_16_bit() -> None:
    scores = np.zeros((1, 300, 2, 2), np.float32)
    scores[0, 299] = 1
    (result,) = decode(recipe_of("logits"), {"y": scores})
    assert result.mask.dtype == np.uint16
    assert set(np.unique(result.mask)) == {299}


# Keypoints


def test_keypoints() -> None:
    recipe = recipe_of("keypoints")
    frame = frame_of(recipe, 120, 300)
    poses = np.zeros((1, 2, 17, 3), np.float32)
    truth = RNG.uniform((0, 0), (300, 120), (17, 2))
    tensor = letterboxed(frame, np.tile(truth, 2))[:, :2]
    poses[0, 0, :, 0], poses[0, 0, :, 1] = tensor[:, 1] / SIZE[0], tensor[:, 0] / SIZE[1]
    poses[0, 0, :, 2] = 0.2
    poses[0, 0, 4, 2] = 0.3
    poses[0, 1, :, 2] = 0.1
    (result,) = decode(recipe, {"y": poses}, frame)
    assert result.keypoints.shape == (1, 17, 3)
    np.testing.assert_allclose(result.keypoints[0, :, :2], truth, atol=1e-3)
    np.testing.assert_array_equal(result.keypoints[0, :, 2], poses[0, 0, :, 2])
    assert result.names[0] == "nose"
    assert result.names[9] == "left wrist"
    assert len(result.skeleton) == 16
    assert len(decode(recipe, {"y": poses}, frame, confidence=0.05)[0]) == 2
    assert decode(recipe, {"y": poses}, frame, confidence=0.5)[0].keypoints.shape == (0, 17, 3)


def test_keypoints_with_names_and_a_skeleton_of_their_own() -> None:
    poses = {"y": np.ones((1, 1, 3, 3), np.float32)}
    (bare,) = decode(recipe_of("keypoints"), poses)
    assert (bare.names, bare.skeleton) == ((), ())
    recipe = recipe_of("keypoints", names=["a", "b", "c"], skeleton=[[0, 2]])
    (named,) = decode(recipe, poses)
    assert (named.names, named.skeleton) == (("a", "b", "c"), ((0, 2),))


# Options and shapes


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("classifier", {"outptu": "y"}),
        ("classifier", {"output": "z"}),
        ("classifier", {"activation": "tanh"}),
        ("classifier", {"offset": 2}),
        ("classifier", {"offset": True}),
        ("yolo", {"form": "v9"}),
        ("yolo", {"multi_label": 1}),
        ("yolox", {"strides": []}),
        ("yolox", {"strides": [8, 0]}),
        ("yolox", {"strides": 8}),
        ("ssd", {}),
        ("ssd", {"anchors": "tf_ssd_300", "boxes": "y"}),
        ("logits", {"form": "scores"}),
        ("logits", {"threshold": 1}),
        ("logits", {"threshold": "half"}),
        ("keypoints", {"form": "simcc"}),
        ("keypoints", {"skeleton": [[1]]}),
        ("keypoints", {"skeleton": [[-1, 2]]}),
        ("keypoints", {"names": [1]}),
    ],
)
def test_bad_options_are_usage_errors(head: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="head option"):
        head_for(recipe_of(head, **options), infos({"y": np.zeros((1, 5, 4), np.float32)}))


def test_several_outputs_need_a_name() -> None:
    outputs = {"a": np.zeros((1, 5), np.float32), "b": np.zeros((1, 7), np.float32)}
    with pytest.raises(UsageError, match="output"):
        decode(recipe_of("classifier"), outputs)
    (result,) = decode(recipe_of("classifier", output="b"), outputs)
    assert len(result.logits) == 7


@pytest.mark.parametrize(
    ("head", "shape", "options"),
    [
        ("classifier", (3, 10), {}),
        ("classifier", (1, 0), {}),
        ("classifier", (1, 1), {"offset": 1}),
        ("yolo", (1, 4, 30), {}),
        ("yolo", (2, 9, 30), {}),
        ("yolo", (9, 30), {}),
        ("yolo", (1, 30, 5), {"form": "v5"}),
        ("yolox", (1, 30, 9), {}),
        ("logits", (1, 5), {}),
        ("logits", (2, 5, 6), {}),
        ("logits", (1, 2, 5, 6), {"form": "argmax"}),
        ("keypoints", (1, 17, 3), {}),
        ("keypoints", (1, 1, 17, 2), {}),
        ("keypoints", (1, 1, 5, 3), {"skeleton": [[0, 5]]}),
    ],
)
def test_outputs_of_another_layout_are_model_errors(
    head: str, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="output y"):
        decode(recipe_of(head, **options), {"y": np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("codes", "scores", "options"),
    [
        ((1, 9, 4), (1, 9, 3), {}),
        ((1, 1917, 4), (1, 9, 3), {}),
        ((2, 1917, 4), (2, 1917, 3), {}),
        ((1, 1917, 4), (1, 1917, 3), {"background": 3}),
    ],
)
def test_ssd_outputs_of_another_layout_are_model_errors(
    codes: tuple[int, ...], scores: tuple[int, ...], options: dict[str, Any]
) -> None:
    recipe = recipe_of("ssd", anchors="tf_ssd_300", **options)
    outputs = {"codes": np.zeros(codes, np.float32), "scores": np.zeros(scores, np.float32)}
    with pytest.raises(ModelError, match="output"):
        decode(recipe, outputs)


@pytest.mark.parametrize(
    "options",
    [
        {"confidence": 1.1},
        {"confidence": float("nan")},
        {"iou": -0.1},
        {"max_det": 0},
        {"top_k": 0},
        {"top_k": 1.5},
        {"classes": ["unicorn"]},
        {"classes": [-1]},
        {"classes": [0.5]},
    ],
    ids=str,
)
def test_bad_call_options_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        options_for(recipe_of("yolo", labels=("cat",)), **options)


def test_call_options_default_to_the_recipe() -> None:
    recipe = Recipe("detect", "yolo", PreprocessSpec(), ("cat", "dog"), 0.11, 0.22, 33)
    options = options_for(recipe, classes=["dog", 0, "dog"])
    assert (options.confidence, options.iou, options.max_det) == (0.11, 0.22, 33)
    assert options.classes == (1, 0)
    assert options_for(recipe, classes="dog").classes == (1,)
    classify = Recipe("classify", "classifier", PreprocessSpec(), confidence=0.9)
    assert options_for(classify).confidence == 0
