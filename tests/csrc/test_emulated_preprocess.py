"""The CUDA back end of preprocessing, its own launcher and kernels, under the checker.

The bytes must equal the CPU back end's in both modes, and OpenCV's or Pillow's own.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import preprocess_reference as reference
import pytest

from emulation import worker
from visionrt import _core
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

pytestmark = pytest.mark.skipif(bool(worker.problem()), reason=worker.problem() or "runs")

Array = np.ndarray[Any, Any]


def plan_of(spec: PreprocessSpec) -> Any:
    return _core.PreprocessPlan(
        spec.resize,
        spec.size,
        spec.crop_ratio,
        spec.interpolation,
        spec.color,
        spec.mean,
        spec.std,
        spec.pad_value,
        spec.letterbox_align,
        spec.layout,
        spec.dtype,
    )


def run_cuda(spec: PreprocessSpec, images: list[Array], color: str, offset: int = 0) -> Array:
    """The tensor that the kernels make. Bytes between an image's rows are not written.

    The tensor starts ``offset`` elements after an address that is aligned to 256 bytes.
    """
    device, plan = worker.emulator(), plan_of(spec)
    h, w = spec.size
    shape = (h, w, spec.channels) if spec.layout == "nhwc" else (spec.channels, h, w)
    with ExitStack() as stack:
        views = []
        for i, image in enumerate(images):
            stride = image.strides[0]
            first, span = min(0, stride * (len(image) - 1)), abs(stride) * (len(image) - 1)
            row_size = 3 * image.shape[1]
            source = stack.enter_context(device.empty(span + row_size, np.uint8, f"image {i}"))
            top = source.address - first
            for y, row in enumerate(image):
                at = top + y * stride
                place = at - source.address
                source.array[place : place + row_size] = row.reshape(-1)
                device.mark_written(at, row_size)
            views.append((top, *image.shape[:2], stride))
        tables = [plan.cuda_table(*image.shape[:2]) for image in images]
        weights = [stack.enter_context(device.buffer(table, "table")).address for table in tables]
        elements = len(images) * int(np.prod(shape))
        out = stack.enter_context(device.empty(offset + elements, spec.dtype, "out"))
        before = out.array[:offset].tobytes()
        start = out.address + offset * out.array.itemsize
        worker.queue(plan.run_cuda, views, start, weights, 0, color)
        assert out.array[:offset].tobytes() == before
        return out.array[offset:].reshape(len(images), *shape).copy()


def check_case(spec: PreprocessSpec, images: list[Array], color: str) -> None:
    got = run_cuda(spec, images, color)
    text = f"{spec} {[image.shape for image in images]} {color}"
    assert got.tobytes() == Preprocessor(spec)(images, color=color).tobytes(), text
    expected = reference.tensor(spec, images, color)
    assert got.tobytes() == np.ascontiguousarray(expected).tobytes(), text


def random_cases(seed: int, count: int, longest: int, interpolation: str) -> int:
    worker.emulator().seed(seed)
    done = 0
    for case in reference.random_cases(seed, count, longest, interpolation=interpolation):
        check_case(*case)
        done += 1
    return done


@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
@pytest.mark.parametrize(("seed", "count", "longest"), [(1, 1000, 9), (2, 800, 40), (3, 50, 150)])
def test_random_cases_equal_the_cpu_back_end(
    interpolation: str, seed: int, count: int, longest: int
) -> None:
    assert worker.run(random_cases, seed, count, longest, interpolation) == count


AWKWARD = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 6), (1, 700), (700, 1), (20, 33)]


def awkward(interpolation: str, resize: str) -> int:
    rng = np.random.default_rng(7)
    done = 0
    for h, w in AWKWARD:
        for size in [(1, 1), (3, 5), (33, 21), (h, w), (2 * h, 2 * w), (9, 129)]:
            spec = PreprocessSpec(resize=resize, size=size, interpolation=interpolation)
            check_case(spec, [rng.integers(0, 256, (h, w, 3), np.uint8)], "bgr")
            done += 1
    return done


@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
def test_awkward_sizes(interpolation: str, resize: str) -> None:
    assert worker.run(awkward, interpolation, resize) == 48


def many_images(interpolation: str, dtype: str, layout: str) -> int:
    """More than one launch takes, each of its own size."""
    rng = np.random.default_rng(3)
    images = [
        reference.random_image(rng, *(int(v) for v in rng.integers(1, 12, 2))) for _ in range(70)
    ]
    plain: dict[str, Any] = {"mean": 0, "std": 1} if dtype == "uint8" else {}
    spec = PreprocessSpec(
        size=(7, 9), interpolation=interpolation, dtype=dtype, layout=layout, **plain
    )
    check_case(spec, images, "rgb")
    return len(images)


@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
@pytest.mark.parametrize(
    ("dtype", "layout"), [("float32", "nchw"), ("float16", "nhwc"), ("uint8", "nchw")]
)
def test_more_images_than_a_launch_takes(interpolation: str, dtype: str, layout: str) -> None:
    assert worker.run(many_images, interpolation, dtype, layout) == 70


def stores(dtype: str, layout: str, color: str, interpolation: str) -> int:
    """Rows that take stores of 16 bytes, and rows that do not: by width, and by address."""
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((5, 9), (40, 30), (3, 200))]
    plain: dict[str, Any] = {"mean": 0, "std": 1} if dtype == "uint8" else {}
    done = 0
    for width in (4, 8, 10, 16, 127, 128, 144, 260):
        plain |= {"size": (9, width), "dtype": dtype, "layout": layout, "color": color}
        spec = PreprocessSpec(interpolation=interpolation, **plain)
        expected = Preprocessor(spec)(images, color="rgb").tobytes()
        for offset in (0, 1, 4, 16):
            assert run_cuda(spec, images, "rgb", offset).tobytes() == expected, (width, offset)
            done += 1
    return done


@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize(
    ("layout", "color"), [("nchw", "rgb"), ("nhwc", "bgr"), ("nchw", "gray"), ("nhwc", "gray")]
)
def test_aligned_and_unaligned_stores(
    dtype: str, layout: str, color: str, interpolation: str
) -> None:
    assert worker.run(stores, dtype, layout, color, interpolation) == 32


def tall_filters() -> int:
    """Filters higher than the rows that a block holds at once, in each direction and as a crop."""
    rng = np.random.default_rng(6)
    done = 0
    for h, w in ((900, 40), (40, 900), (700, 700)):
        for resize in ("letterbox", "stretch", "crop"):
            spec = PreprocessSpec(resize=resize, size=(19, 33), interpolation="pil")
            check_case(spec, [rng.integers(0, 256, (h, w, 3), np.uint8)], "bgr")
            done += 1
    return done


def test_filters_higher_than_what_a_block_holds() -> None:
    assert worker.run(tall_filters) == 9


def full_frame(interpolation: str) -> bool:
    device = worker.emulator()
    image = np.random.default_rng(4).integers(0, 256, (1080, 1920, 3), np.uint8)
    spec = PreprocessSpec(size=(640, 640), interpolation=interpolation)
    device.checking(False)
    try:
        return run_cuda(spec, [image], "bgr").tobytes() == Preprocessor(spec)([image]).tobytes()
    finally:
        device.checking(True)


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
def test_a_full_frame(interpolation: str) -> None:
    assert worker.run(full_frame, interpolation)
