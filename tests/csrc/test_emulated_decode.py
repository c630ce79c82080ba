"""The CUDA decoders, their own launchers and kernels, executed on the host under the checker.

Candidates, put into the order of their source index, must equal the CPU back end's bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import test_decode as cpu

from emulation import worker
from visionrt import _core

pytestmark = pytest.mark.skipif(bool(worker.problem()), reason=worker.problem() or "runs")

F32, I32 = np.float32, np.int32
Array = np.ndarray[Any, Any]
Found = tuple[Array, Array, Array, Array]
MANY = 10**7


class Candidates:
    """The buffers of a batch, unwritten but for what the launcher clears."""

    def __init__(self, stack: ExitStack, batch: int, capacity: int) -> None:
        shapes = {
            "boxes": ((batch, capacity, 4), F32),
            "scores": ((batch, capacity), F32),
            "class_ids": ((batch, capacity), I32),
            "source_index": ((batch, capacity), I32),
            "counts": ((batch,), I32),
        }
        device = worker.emulator()
        self.parts = {
            name: stack.enter_context(device.empty(shape, dtype, name))
            for name, (shape, dtype) in shapes.items()
        }
        self.capacity = capacity
        self.addresses = [part.address for part in self.parts.values()]

    def of(self, image: int, classes: int) -> Found:
        """Boxes, scores, class ids and anchors of one image, in the CPU back end's order."""
        count = self.parts["counts"].array[image]
        boxes, scores, ids, source = (
            self.parts[name].array[image, :count].copy()
            for name in ("boxes", "scores", "class_ids", "source_index")
        )
        order = np.argsort(source)
        assert (source % classes == ids).all()
        return boxes[order], scores[order], ids[order], (source // classes)[order]


def same_bits(got: Found, expected: Found) -> int:
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.tobytes() == np.ascontiguousarray(theirs, ours.dtype).tobytes()
    return len(got[1])


def as_output(rng: np.random.Generator, images: list[Array]) -> tuple[list[Array], bool, Array]:
    """The images, a third of them float16: widened for the CPU, and as the device holds them."""
    if rng.integers(3):
        return images, False, np.stack(images)
    with np.errstate(over="ignore"):
        halves = np.stack(images).astype(np.float16)
    return list(halves.astype(F32)), True, halves


def awkward_scores(rng: np.random.Generator, n: int, classes: int) -> Array:
    scores = cpu.sparse_scores(rng, n, classes)
    scores[rng.random(scores.shape) < 0.01] = rng.choice(np.array([np.inf, -np.inf, -1], F32))
    return scores


def yolo_case(rng: np.random.Generator) -> int:
    form = str(rng.choice(["v8", "v8_rows", "v5"]))
    batch, n = int(rng.choice([1, 2])), int(rng.choice([1, 3, 4, 5, 31, 127, 128, 129, 150]))
    classes, extra = int(rng.choice([1, 2, 17, 31, 32, 33, 80])), int(rng.choice([0, 3]))
    multi_label, threshold = bool(rng.integers(2)), float(rng.choice([0.25, 0.1, 0.75, -1]))
    images = [
        cpu.layout(
            form,
            cpu.center_boxes(rng, n),
            awkward_scores(rng, n, classes),
            np.where(rng.random(n) < 0.1, np.nan, rng.random(n) ** 0.3).astype(F32),
            extra,
        )
        for _ in range(batch)
    ]
    images, is_float16, stored = as_output(rng, images)
    with ExitStack() as stack:
        output = stack.enter_context(worker.emulator().buffer(stored, "output"))
        out = Candidates(stack, batch, _core.decode_capacity(n, classes, multi_label))
        columns = 4 + classes + extra + (form == "v5")
        worker.queue(
            _core.cuda_decode_yolo,
            *(output.address, batch, form, n, columns, classes, threshold),
            *(out.addresses, out.capacity, 0, multi_label, is_float16),
        )
        return sum(
            same_bits(
                out.of(i, classes),
                _core.decode_yolo(image, form, classes, threshold, multi_label, MANY),
            )
            for i, image in enumerate(images)
        )


def yolox_case(rng: np.random.Generator) -> int:
    strides = [[8, 16, 32], [7, 64], [16]][int(rng.integers(3))]
    input_hw = (int(rng.integers(16, 90)), int(rng.integers(16, 90)))
    n = sum((input_hw[0] // s) * (input_hw[1] // s) for s in strides)
    classes, multi_label = int(rng.choice([1, 3, 33, 80])), bool(rng.integers(2))
    batch, threshold = int(rng.choice([1, 2])), float(rng.choice([0.25, 0.6]))
    if n == 0:
        return 0
    images = [
        cpu.layout(
            "v5",
            rng.normal(0, 4, (n, 4)).astype(F32),
            awkward_scores(rng, n, classes),
            rng.random(n).astype(F32) ** 0.3,
            0,
        )
        for _ in range(batch)
    ]
    images, is_float16, stored = as_output(rng, images)
    with ExitStack() as stack:
        output = stack.enter_context(worker.emulator().buffer(stored, "output"))
        out = Candidates(stack, batch, _core.decode_capacity(n, classes, multi_label))
        worker.queue(
            _core.cuda_decode_yolox,
            *(output.address, batch, input_hw, n, 5 + classes, classes, threshold),
            *(out.addresses, out.capacity, 0),
            strides=strides,
            multi_label=multi_label,
            is_float16=is_float16,
        )
        return sum(
            same_bits(
                out.of(i, classes),
                _core.decode_yolox(image, input_hw, classes, threshold, strides, multi_label, MANY),
            )
            for i, image in enumerate(images)
        )


def ssd_case(rng: np.random.Generator) -> int:
    activation = str(rng.choice(["none", "sigmoid", "softmax"]))
    batch, n = int(rng.choice([1, 2])), int(rng.choice([1, 3, 4, 5, 63, 130]))
    classes = int(rng.choice([1, 2, 12, 31, 32, 33, 91]))
    background, multi_label = int(rng.choice([-1, 0, classes - 1])), bool(rng.integers(2))
    threshold = float(rng.choice([-1, 0, 0.01, 0.3, 0.9]))
    codes, priors = rng.normal(0, 3, (batch, n, 4)).astype(F32), rng.random((n, 4)).astype(F32)
    logits = rng.normal(-2, 3, (batch, n, classes)).astype(F32)
    for value, share in ((np.nan, 0.02), (-np.inf, 0.02), (np.inf, 0.01)):
        logits[rng.random(logits.shape) < share] = value
    if rng.integers(8) == 0:
        logits[:, ::2] = -np.inf
    options: dict[str, Any] = {
        "variances": (10.0, 10.0, 5.0, 5.0),
        "activation": activation,
        "background": background,
        "multi_label": multi_label,
        "code": str(rng.choice(["yxhw", "xywh"])),
    }
    is_float16 = not rng.integers(3)
    stored = codes, logits
    if is_float16:
        stored = codes.astype(np.float16), logits.astype(np.float16)
        codes, logits = (part.astype(F32) for part in stored)
    device = worker.emulator()
    with ExitStack() as stack:
        parts = [
            stack.enter_context(device.buffer(array, name)).address
            for array, name in zip(
                (*stored, priors), ("box_codes", "scores", "anchors"), strict=True
            )
        ]
        out = Candidates(stack, batch, _core.decode_capacity(n, classes, multi_label))
        worker.queue(
            _core.cuda_decode_ssd,
            *(*parts, batch, n, classes, (300, 200), threshold, out.addresses, out.capacity, 0),
            **options,
            is_float16=is_float16,
        )
        return sum(
            same_bits(
                out.of(i, classes),
                _core.decode_ssd(
                    *(codes[i], logits[i], priors, (300, 200), threshold),
                    max_candidates=MANY,
                    **options,
                ),
            )
            for i in range(batch)
        )


def random_cases(case: Callable[[np.random.Generator], int], seed: int, count: int) -> int:
    rng = np.random.default_rng(seed)
    worker.emulator().seed(seed)
    return sum(case(rng) for _ in range(count))


@pytest.mark.parametrize(
    ("case", "count"), [(yolo_case, 1200), (yolox_case, 1000), (ssd_case, 1000)]
)
def test_random_cases_equal_the_cpu_back_end(
    case: Callable[[np.random.Generator], int], count: int
) -> None:
    assert worker.run(random_cases, case, 1, count) > 1000


def float64_yolo(form: str, multi_label: bool) -> int:
    rng = np.random.default_rng(5)
    n, classes = 300, 7
    boxes, scores = cpu.center_boxes(rng, n), cpu.sparse_scores(rng, n, classes)
    output = cpu.layout(form, boxes, scores, np.zeros(n, F32), 2)
    with ExitStack() as stack:
        device = stack.enter_context(worker.emulator().buffer(output[None], "output"))
        out = Candidates(stack, 1, _core.decode_capacity(n, classes, multi_label))
        worker.queue(
            _core.cuda_decode_yolo,
            *(device.address, 1, form, n, 6 + classes, classes, 0.25),
            *(out.addresses, out.capacity, 0, multi_label),
        )
        found = out.of(0, classes)
    anchors, labels = cpu.passing(scores, scores, 0.25, multi_label)
    cpu.check(found, anchors, labels, scores)
    exact = cpu.corners(*boxes[anchors].astype(np.float64).T)
    # One subtraction, and one exact halving.
    assert (np.abs(found[0] - exact) <= cpu.ROUNDING * np.abs(exact) + 1e-30).all()
    return len(anchors)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("form", ["v8", "v8_rows"])
def test_the_float64_reference_agrees(form: str, multi_label: bool) -> None:
    assert worker.run(float64_yolo, form, multi_label) > 100


def decode_then_nms(batch: int, n: int, classes: int, checking: bool) -> int:
    """A detector's two stages on one device: NMS reads the counts where the decoder left them."""
    rng = np.random.default_rng(n)
    max_det, threshold = 100, 0.3
    images = [
        cpu.layout("v8", cpu.center_boxes(rng, n), rng.random((n, classes)).astype(F32) ** 8,
                   np.zeros(n, F32), 0)
        for _ in range(batch)
    ]  # fmt: skip
    device = worker.emulator()
    device.checking(checking)
    try:
        with ExitStack() as stack:
            output = stack.enter_context(device.buffer(np.stack(images), "output"))
            out = Candidates(stack, batch, n)
            kept = stack.enter_context(device.empty((batch, max_det), I32, "kept"))
            counts = stack.enter_context(device.empty((batch,), I32, "kept_counts"))
            size = _core.cuda_nms_workspace_bytes(batch, n, max_det)
            workspace = stack.enter_context(device.empty(size, np.uint8, "workspace"))
            worker.queue(
                _core.cuda_decode_yolo,
                *(output.address, batch, "v8", n, 4 + classes, classes, threshold),
                *(out.addresses, n, 0),
            )
            boxes, scores, ids, source, found = out.addresses
            worker.queue(
                _core.cuda_nms,
                *(boxes, scores, ids, source, found, batch, n, 0.5, max_det),
                *(workspace.address, size, kept.address, counts.address, 0),
            )
            total = 0
            for i, image in enumerate(images):
                b, s, c, _ = _core.decode_yolo(image, "v8", classes, threshold)
                expected = _core.nms(b, s, c, 0.5, max_det)
                chosen = kept.array[i, : counts.array[i]]
                assert out.parts["boxes"].array[i, chosen].tobytes() == b[expected].tobytes()
                assert out.parts["class_ids"].array[i, chosen].tolist() == c[expected].tolist()
                total += len(chosen)
            return total
    finally:
        device.checking(True)


def test_decode_and_nms_in_a_row() -> None:
    assert worker.run(decode_then_nms, 3, 200, 5, True) > 60


@pytest.mark.slow
def test_sixteen_full_frames() -> None:
    assert worker.run(decode_then_nms, 16, 8400, 80, False) == 1600
