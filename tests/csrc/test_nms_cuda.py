"""What the CUDA back ends of NMS and the decoders promise before any kernel runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from visionrt import _core
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

ADDRESS = 4096  # never read: every call here ends before a launch
BUFFERS = [ADDRESS] * 5
PLACE = Preprocessor(PreprocessSpec()).geometry(4, 5)
needs_no_driver = pytest.mark.skipif(
    not _core.driver_problem(), reason="a driver is here, and would read the made-up addresses"
)


def queue_nms(**changes: object) -> None:
    arguments: dict[str, object] = {
        "boxes": ADDRESS,
        "scores": ADDRESS,
        "class_ids": 0,
        "source_index": 0,
        "counts": 0,
        "batch": 1,
        "capacity": 100,
        "iou_threshold": 0.5,
        "max_det": 10,
        "workspace": ADDRESS,
        "workspace_bytes": 1 << 30,
        "kept": ADDRESS,
        "kept_counts": ADDRESS,
        "stream": 0,
    }
    _core.cuda_nms(**(arguments | changes))


def queue_yolo(**changes: object) -> None:
    arguments: dict[str, object] = {
        "output": ADDRESS,
        "batch": 1,
        "form": "v8",
        "anchors": 100,
        "columns": 84,
        "num_classes": 80,
        "score_threshold": 0.5,
        "candidates": BUFFERS,
        "capacity": 100,
        "stream": 0,
    }
    _core.cuda_decode_yolo(**(arguments | changes))


def queue_yolox(capacity: int) -> None:
    _core.cuda_decode_yolox(ADDRESS, 1, (64, 64), 84, 8, 3, 0.5, BUFFERS, capacity, 0)


def queue_ssd(capacity: int, background: int = 0) -> None:
    _core.cuda_decode_ssd(
        *[ADDRESS] * 3, 1, 50, 91, (300, 300), 0.5, BUFFERS, capacity, 0, background=background
    )


def test_the_workspace_holds_the_sorted_candidates_and_the_kept_list() -> None:
    for batch, capacity, max_det in ((0, 0, 1), (1, 1, 1), (1, 30000, 300), (16, 8400, 300)):
        needed = _core.cuda_nms_workspace_bytes(batch, capacity, max_det)
        least = batch * (36 * capacity + 20 * max_det + 4)
        assert least <= needed <= least + 8 * 256
        assert needed % 256 == 0


def test_max_candidates_bounds_the_workspace() -> None:
    all_of_them = _core.cuda_nms_workspace_bytes(1, 672_000, 300)
    best_only = _core.cuda_nms_workspace_bytes(1, 672_000, 300, 30_000)
    keys = 12 * (672_000 - 30_000)
    assert best_only <= _core.cuda_nms_workspace_bytes(1, 30_000, 300) + keys + 2 * 256
    assert best_only < 0.4 * all_of_them


def test_capacity_counts_every_class_only_with_multi_label() -> None:
    assert _core.decode_capacity(8400, 80) == 8400
    assert _core.decode_capacity(8400, 80, True) == 672_000


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: queue_nms(workspace_bytes=1000), "workspace must have [0-9]+ bytes.*got 1000"),
        (lambda: queue_nms(boxes=ADDRESS + 8), "aligned to 16"),
        (lambda: queue_nms(workspace=ADDRESS + 16), "aligned to 16 bytes and the workspace to 256"),
        (lambda: queue_nms(iou_threshold=2.0), "iou_threshold must be between 0 and 1"),
        (lambda: queue_nms(max_det=0), "max_det must be 1 or more"),
        (lambda: queue_nms(max_candidates=0), "max_candidates must be 1 or more"),
        (lambda: queue_nms(detections=ADDRESS + 8), "detections must be aligned to 16"),
        (lambda: queue_nms(classes=[4096]), "classes must be 0 to 4095, got 4096"),
        (lambda: queue_nms(geometries=[PLACE, PLACE]), "must be 1, one for each image.* got 2"),
        (lambda: queue_nms(batch=65536), "batch must be 0 to 65535"),
        (
            lambda: queue_nms(
                max_det=1 << 12, detections=ADDRESS, extra=(ADDRESS, 0, 0, 0, 1, 1 << 20, ADDRESS)
            ),
            "max_det [*] extra columns must be at most [0-9]+, got 4294967296",
        ),
        (lambda: queue_yolo(anchors=-1), "number of anchors must be 0 or more"),
        (lambda: queue_yolo(capacity=99), "must hold 100 per image, got 99"),
        (lambda: queue_yolo(multi_label=True), "must hold 8000 per image, got 100"),
        (lambda: queue_yolo(columns=83), r"4 \+ 80 columns or more, got 83"),
        (lambda: queue_yolo(form="v3"), "form must be"),
        (lambda: queue_yolo(score_threshold=float("nan")), "score_threshold must be a number"),
        (lambda: queue_yolo(batch=-1), "batch must be 0 to 65535"),
        (lambda: queue_yolo(candidates=[ADDRESS + 4, *BUFFERS[1:]]), "aligned to 16"),
        (lambda: queue_yolox(83), "must hold 84 per image"),
        (lambda: queue_ssd(49), "must hold 50 per image"),
        (lambda: queue_ssd(50, background=91), "background must be -1"),
    ],
)
def test_wrong_sizes_are_refused_before_a_launch(call: Callable[[], None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


@needs_no_driver
@pytest.mark.parametrize(
    "call", [queue_nms, queue_yolo, lambda: queue_yolox(84), lambda: queue_ssd(50)]
)
def test_a_missing_driver_is_said(call: Callable[[], None]) -> None:
    with pytest.raises(_core.DriverError, match=r"libcuda|kernels"):
        call()


def test_an_empty_batch_is_no_work() -> None:
    queue_nms(batch=0)
    queue_yolo(batch=0)
