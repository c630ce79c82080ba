"""Data and arguments that do not fit, at both layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visionrt import _core
from visionrt.errors import InputDataError
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

IMAGE = np.zeros((4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((4, 5), np.uint8), r"image 1 .*shape \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"shape \(1, 4, 5, 3\)"),
        (np.zeros((4, 5, 3), np.uint16), "uint16"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.zeros((4, 0, 3), np.uint8), r"\(4, 0, 3\)"),
        ("street.jpg", "a str"),
        (None, "a NoneType"),
    ],
)
def test_images_of_another_form(image, said):
    with pytest.raises(InputDataError, match=said) as caught:
        Preprocessor(PreprocessSpec())([IMAGE, image])
    assert caught.value.exit_code == 8


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((1, 3, 8, 9), np.float32),
        np.zeros((2, 3, 8, 8), np.float32),
        np.zeros((1, 8, 8, 3), np.float32),
        np.zeros((1, 3, 8, 8), np.float64),
        np.zeros((1, 3, 8, 8), ">f4"),
        np.zeros((1, 3, 8, 16), np.float32)[..., ::2],
        np.zeros((3, 8, 8), np.float32),
    ],
)
def test_outputs_of_another_form(out):
    with pytest.raises(InputDataError, match=r"out to be .* float32 array of shape \(1, 3, 8, 8\)"):
        Preprocessor(PreprocessSpec(size=(8, 8)))([IMAGE], out=out)


def test_output_that_is_no_array():
    with pytest.raises(InputDataError, match="got a list"):
        Preprocessor(PreprocessSpec(size=(1, 1)))([IMAGE], out=[[[[0.0]]] * 3])
    with pytest.raises(TypeError):  # rather than filling a copy
        plan(size_hw=(1, 1)).run([IMAGE], [[[[0.0]], [[0.0]], [[0.0]]]], "bgr")


def test_output_that_is_read_only():
    out = np.zeros((1, 3, 8, 8), np.float32)
    out.flags.writeable = False
    with pytest.raises(InputDataError, match="writable"):
        Preprocessor(PreprocessSpec(size=(8, 8)))([IMAGE], out=out)


def test_output_is_used_and_returned():
    out = np.full((1, 3, 8, 8), np.nan, np.float32)
    assert Preprocessor(PreprocessSpec(size=(8, 8)))([IMAGE], out=out) is out
    assert np.isfinite(out).all()


def test_arguments():
    run = Preprocessor(PreprocessSpec())
    with pytest.raises(InputDataError, match="'hsv'"):
        run([IMAGE], color="hsv")
    for threads in (0, -3):
        with pytest.raises(InputDataError, match=f"got {threads}"):
            run([IMAGE], threads=threads)


def plan(**changes: Any) -> _core.PreprocessPlan:
    fields: dict[str, Any] = {
        "resize": "stretch",
        "size_hw": (8, 8),
        "crop_ratio": 0.875,
        "interpolation": "cv2",
        "color": "rgb",
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "pad_value": 0,
        "letterbox_align": "center",
        "layout": "nchw",
        "dtype": "float32",
    }
    return _core.PreprocessPlan(**{**fields, **changes})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"resize": "squash"}, "letterbox | stretch | crop, got 'squash'"),
        ({"interpolation": "cubic"}, "cv2 | pil"),
        ({"color": "hsv"}, "rgb | bgr | gray"),
        ({"layout": "chwn"}, "nchw | nhwc"),
        ({"dtype": "int8"}, "float32 | float16 | uint8"),
        ({"letterbox_align": "left"}, "center | top_left"),
        ({"size_hw": (0, 8)}, "0 x 8"),
        ({"size_hw": (8, 16385)}, "8 x 16385"),
        ({"crop_ratio": 0.0}, "crop_ratio"),
        ({"crop_ratio": float("nan")}, "crop_ratio"),
        ({"pad_value": 256}, "256"),
        ({"std": (1, 0, 1)}, "std above 0"),
        ({"mean": (float("inf"), 0, 0)}, "finite mean"),
        ({"dtype": "uint8", "std": (2, 1, 1)}, "std 1 with uint8"),
    ],
)
def test_the_native_plan_checks_its_own_values(change, said):
    with pytest.raises(ValueError, match="expected") as caught:
        plan(**change)
    assert said in str(caught.value)


def test_the_native_plan_refuses_pixels_that_are_not_contiguous():
    out = np.zeros((1, 3, 8, 8), np.float32)
    for image in (np.zeros((3, 4, 5), np.uint8).T, np.zeros((4, 10, 3), np.uint8)[:, ::2]):
        with pytest.raises(ValueError, match="image 0 to have contiguous pixels"):
            plan().run([image], out, "bgr")


def test_cuda_tables():
    assert plan().cuda_table(1080, 1920).size == 0
    pil = plan(interpolation="pil", size_hw=(224, 224), resize="stretch")
    # Per column of the tensor: its first source pixel, how many, and weights that sum to 2^22. A
    # triangle over 1920 / 224 pixels to each side touches 19.
    first, counts, *weights = pil.cuda_table(1080, 1920)[: 224 * (2 + 19)].reshape(-1, 224)
    assert (first[0], (first + counts)[-1]) == (0, 1920)
    sums = np.sum(weights, axis=0)[first + counts > first]
    assert np.abs(sums - (1 << 22)).max() <= counts.max()
    with pytest.raises(ValueError, match="image sides of 1 to"):
        pil.cuda_table(0, 5)
    for tables, words in (([], "for each of 1 images, got 0"), ([0], "address 0"), ([6], "to 4")):
        with pytest.raises(ValueError, match=words):
            pil.run_cuda([(0, 1080, 1920, 5760)], 0, tables, 0, "bgr")


@pytest.mark.skipif(not _core.driver_problem(), reason="needs a machine without an NVIDIA driver")
def test_cuda_without_a_driver_says_so():
    with pytest.raises(_core.DriverError):
        plan().run_cuda([(0, 4, 5, 15)], 0, [], 0, "bgr")
