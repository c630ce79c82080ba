"""The tensors that a reader of calibration images holds on to."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

import trtconvert.calibration.reader as reading
from trtconvert.calibration.reader import ImageReader
from visionrt import image_io
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

SPEC = PreprocessSpec(resize="stretch", size=(8, 8), std=(1, 1, 1))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for index in range(6):
        pixels = rng.integers(0, 256, (9 + index, 11, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    return tmp_path


@pytest.fixture
def decoded(monkeypatch):
    """How often each file was decoded."""
    counts = Counter()
    decode = image_io.decode

    def counted(path):
        counts[path.name] += 1
        return decode(path)

    monkeypatch.setattr(image_io, "decode", counted)
    return counts


def test_passes_over_the_same_images_decode_them_once(folder, decoded):
    reader = ImageReader(folder, SPEC)
    first, again = list(reader), list(reader)
    some = list(reader.some(3))
    listed = list(reader.of(reader.files[4:]))
    assert decoded == {f"{i}.png": 1 for i in range(6)}
    np.testing.assert_array_equal(np.concatenate(again), np.concatenate(first))
    np.testing.assert_array_equal(np.concatenate(some), np.concatenate(first[::2]))
    np.testing.assert_array_equal(np.concatenate(listed), np.concatenate(first[4:]))


def test_what_is_kept_has_a_limit(folder, decoded, monkeypatch):
    monkeypatch.setattr(reading, "_KEPT_BYTES", 2 * 3 * 8 * 8 + 1)
    reader = ImageReader(folder, SPEC)
    first, again = list(reader), list(reader)
    assert decoded == {"0.png": 1, "1.png": 1} | {f"{i}.png": 2 for i in range(2, 6)}
    np.testing.assert_array_equal(np.concatenate(again), np.concatenate(first))


def test_kept_tensors_make_the_same_batches(folder):
    reader = ImageReader(folder, SPEC, batch=4)
    whole = np.concatenate(list(ImageReader(folder, SPEC)))
    for _ in range(2):
        batches = list(reader)
        np.testing.assert_array_equal(batches[0], whole[:4])
        np.testing.assert_array_equal(batches[1], whole[[4, 5, 5, 5]])


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_tensors_are_those_of_the_runtime_to_the_last_bit(folder, color, layout, dtype):
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    if dtype == "uint8":
        mean, std = (0, 0, 0), (1, 1, 1)
    for resize, interpolation in (("letterbox", "cv2"), ("crop", "pil")):
        spec = PreprocessSpec(
            *(resize, (24, 40), 0.875, interpolation, color, mean, std),
            layout=layout,
            dtype=dtype,
        )
        reader, preprocessor = ImageReader(folder, spec), Preprocessor(spec)
        for _ in range(2):
            for path, tensor in zip(reader.files, reader, strict=True):
                expected = preprocessor([image_io.decode(path)])
                assert tensor.dtype == expected.dtype
                np.testing.assert_array_equal(tensor, expected)
