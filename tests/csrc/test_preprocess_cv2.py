"""cv2 mode against OpenCV itself: the same bits, so every comparison is exact."""

from __future__ import annotations

import ctypes
import mmap
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import preprocess_reference as reference
import pytest

from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


@pytest.mark.parametrize(("longest", "count"), [(8, 2500), (64, 2500), (200, 500)])
def test_random_cases_equal_opencv(longest, count, record_property):
    worst = 0.0
    cases = reference.random_cases(longest, count, longest, interpolation="cv2")
    for spec, images, color in cases:
        got = Preprocessor(spec)(images, color=color)
        difference = largest_difference(got, reference.tensor(spec, images, color))
        assert difference == 0, f"{spec} {[i.shape for i in images]} {color}: {difference}"
        worst = max(worst, difference)
    record_property("max_difference", worst)


AWKWARD = [(1, 1), (1, 7), (7, 1), (2, 2), (5, 6), (6, 5), (1, 4000), (4000, 1), (20, 33)]


@pytest.mark.parametrize("resize", ["letterbox", "stretch"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_awkward_sizes(resize, color):
    rng = np.random.default_rng(7)
    for h, w in AWKWARD:
        for size in [(1, 1), (3, 5), (32, 32), (33, 21), (h, w), (2 * h, 2 * w)]:
            spec = PreprocessSpec(resize=resize, size=size, color=color)
            images = [rng.integers(0, 256, (h, w, 3), np.uint8)]
            got = Preprocessor(spec)(images)
            assert largest_difference(got, reference.tensor(spec, images, "bgr")) == 0, (h, w, size)


def test_exact_halving_is_opencvs_2x2_mean():
    image = np.array([[[0] * 3, [1] * 3], [[2] * 3, [3] * 3]], np.uint8)  # mean 1.5
    spec = PreprocessSpec(
        resize="stretch", size=(1, 1), std=(1, 1, 1), dtype="uint8", layout="nhwc"
    )
    assert Preprocessor(spec)([image]).tolist() == [[[[2, 2, 2]]]]


@pytest.mark.parametrize("shape", [(20000, 1), (1, 20000)])
@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
def test_a_needle_is_cropped_without_resizing_it_whole(shape, interpolation):
    # Resized before the crop, one side has 5,120,000 pixels: the whole would take 4 GB.
    spec = PreprocessSpec(resize="crop", size=(224, 224), interpolation=interpolation)
    flat = np.full((*shape, 3), 51, np.uint8)
    geometry = Preprocessor(spec).geometry(*shape)
    assert max(geometry.resized_h, geometry.resized_w) == 5_120_000
    np.testing.assert_array_equal(Preprocessor(spec)([flat]), np.float32(51) * np.float32(1 / 255))


@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
def test_a_needle_letterboxed_keeps_one_pixel(interpolation):
    spec = PreprocessSpec(size=(64, 64), interpolation=interpolation, dtype="uint8", std=1)
    out = Preprocessor(spec)([np.full((20000, 1, 3), 9, np.uint8)])
    assert (out[0, 0] == 9).sum() == 64
    assert (out[0, 0, :, 31] == 9).all()  # 63 columns of border: 31 left, 32 right


def test_photo_sized_image_and_threads_give_the_same_bits():
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(1080, 1920), (427, 640)]]
    for spec in (PreprocessSpec(), PreprocessSpec.parse("imagenet"), PreprocessSpec(size=(97, 31))):
        run = Preprocessor(spec)
        one = run(images)
        for threads in (2, 3, 64, 1000):
            np.testing.assert_array_equal(run(images, threads=threads), one)
        np.testing.assert_array_equal(one, reference.tensor(spec, images, "bgr"))


def test_one_preprocessor_serves_many_threads():
    spec = PreprocessSpec(size=(96, 64))
    run = Preprocessor(spec)
    images = [reference.random_image(np.random.default_rng(i), 50 + i, 80) for i in range(8)]
    expected = [reference.tensor(spec, [image], "bgr") for image in images]

    def all_right(i: int) -> bool:
        return all(np.array_equal(run([images[i]]), expected[i]) for _ in range(20))

    with ThreadPoolExecutor(len(images)) as pool:
        assert all(pool.map(all_right, range(len(images))))


def test_pixels_that_are_not_contiguous_are_copied():
    rng = np.random.default_rng(5)
    planes = rng.integers(0, 256, (3, 20, 30), np.uint8)
    run = Preprocessor(PreprocessSpec(size=(16, 16)))
    for view in (planes.transpose(1, 2, 0), np.moveaxis(planes, 0, 2)[:, ::-1], planes.T):
        np.testing.assert_array_equal(run([view]), run([view.copy()]))


def test_one_row_and_one_column_may_have_any_stride():
    image = np.random.default_rng(6).integers(0, 256, (8, 9, 3), np.uint8)
    run = Preprocessor(PreprocessSpec(size=(8, 8)))
    for view in (image[::9], image[:, ::10]):
        np.testing.assert_array_equal(run([view]), run([view.copy()]))


def test_float16_rounds_to_nearest_even():
    # 256 pixels in one row and scales that reach ties, subnormals, overflow and underflow.
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for std in (1.0, 255.0, 2.0**-9, 1e-4, 2.0**17, 2.0**24, 2.0**26, 3e30):
        spec = PreprocessSpec(
            resize="stretch", size=(1, 256), mean=(127.5, 0, 3), std=std, dtype="float16"
        )
        with np.errstate(over="ignore"):
            expected = reference.tensor(spec, [ramp], "bgr")
        np.testing.assert_array_equal(Preprocessor(spec)([ramp]), expected)


def before_forbidden_memory(image: np.ndarray) -> np.ndarray:
    """A copy whose last byte is the last one of its mapping: the page after it faults."""
    page = mmap.PAGESIZE
    pages = -(-image.nbytes // page)
    mapping = mmap.mmap(-1, (pages + 1) * page)
    whole = np.frombuffer(mapping, np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    end = whole.ctypes.data + pages * page
    assert protect(ctypes.c_void_p(end), ctypes.c_size_t(page), 0) == 0
    copy = whole[pages * page - image.nbytes : pages * page].reshape(image.shape)
    copy[:] = image
    return copy


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
@pytest.mark.parametrize("color", ["bgr", "gray"])
def test_nothing_is_read_past_the_image(interpolation, color):
    rng = np.random.default_rng(8)
    for w in range(1, 40):
        image = before_forbidden_memory(rng.integers(0, 256, (3, w, 3), np.uint8))
        for size in [(3, w), (5, 2 * w + 1), (2, max(1, w // 2)), (9, 7 * w)]:
            spec = PreprocessSpec(
                resize="stretch", size=size, interpolation=interpolation, color=color
            )
            np.testing.assert_array_equal(
                Preprocessor(spec)([image]), reference.tensor(spec, [image], "bgr")
            )


def test_an_empty_batch_gives_an_empty_tensor():
    assert Preprocessor(PreprocessSpec(size=(4, 4)))([]).shape == (0, 3, 4, 4)
