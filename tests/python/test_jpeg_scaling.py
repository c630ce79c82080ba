"""JPEGs that are decoded at a smaller scale: where they may be, and what comes out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from real_models import MEAN_COLOR_RECIPE, mean_color_model

from visionrt import image_io
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError, UsageError
from visionrt.model import Model
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

CROP = PreprocessSpec.parse("imagenet")


def jpeg(height: int, width: int, orientation: int = 1) -> bytes:
    """Smooth gradients, in which no scale loses anything; red grows rightwards, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.dstack([x * 255 / width, y * 255 / height, np.full(x.shape, 80)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(picture.round().astype(np.uint8)).save(
        buffer, "JPEG", quality=98, subsampling=0, exif=exif
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size_hw", "spec", "expected"),
    [
        ((1080, 1920), CROP, 4),
        ((512, 512), CROP, 2),
        ((511, 511), CROP, 2),  # a half, rounded up, is 256: what the spec resizes to
        ((510, 511), CROP, 1),
        ((2048, 3000), CROP, 8),
        ((255, 300), CROP, 1),
        ((1080, 1920), PreprocessSpec(), 2),
        ((1, 1), PreprocessSpec(), 1),
        ((600, 599), PreprocessSpec(resize="stretch", size=(300, 300)), 2),
        ((600, 598), PreprocessSpec(resize="stretch", size=(300, 300)), 1),
    ],
)
def test_the_divisor_leaves_enough_pixels(
    size_hw: tuple[int, int], spec: PreprocessSpec, expected: int
) -> None:
    assert Preprocessor(spec).jpeg_divisor(*size_hw) == expected


def test_a_scaled_image_lands_on_the_same_pixels() -> None:
    rng = np.random.default_rng(5)
    scaled = 0
    for text in ("imagenet", "yolo", "yolox", "tf"):
        preprocess = Preprocessor(PreprocessSpec.parse(text))
        for _ in range(300):
            height, width = (int(v) for v in rng.integers(1, 5000, 2))
            divisor = preprocess.jpeg_divisor(height, width)
            small = preprocess.geometry(-(-height // divisor), -(-width // divisor))
            whole = preprocess.geometry(height, width)
            for field in ("resized_h", "resized_w", "offset_x", "offset_y"):
                assert getattr(small, field) == getattr(whole, field)
            assert small.image_h >= whole.resized_h or divisor == 1
            scaled += divisor > 1
    assert scaled > 300


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scaled_jpeg_is_the_whole_one_made_smaller(orientation: int) -> None:
    data = jpeg(160, 328, orientation)
    whole = image_io.decode(data)
    asked: list[tuple[int, int]] = []

    def quarter(height: int, width: int) -> int:
        asked.append((height, width))
        return 4

    small, full_hw = image_io.decode_for(data, "bgr", quarter)
    assert asked == [whole.shape[:2]] == [full_hw]
    assert small.shape == (full_hw[0] // 4, full_hw[1] // 4, 3)
    blocks = whole.reshape(small.shape[0], 4, small.shape[1], 4, 3).mean((1, 3))
    # One rounding each of the codec and of the average, and one of quality 98's quantization.
    assert np.abs(blocks - small).max() <= 3


def test_what_is_no_jpeg_is_decoded_whole() -> None:
    array = np.zeros((700, 900, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    for source in (array, buffer.getvalue(), Image.fromarray(array)):
        pixels, full_hw = image_io.decode_for(source, "bgr", lambda height, width: 4)
        assert pixels.shape == array.shape
        assert full_hw == (700, 900)
    with pytest.raises(UsageError, match="bgr or rgb"):
        image_io.decode_for(buffer.getvalue(), "gbr", lambda height, width: 1)
    with pytest.raises(InputDataError, match="absent"):
        image_io.decode_for("absent.jpg", "bgr", lambda height, width: 1)
    with pytest.raises(InputDataError, match="damaged"):
        image_io.decode_for(jpeg(400, 400)[:900], "bgr", lambda height, width: 4)


@pytest.mark.parametrize(
    ("interpolation", "decode", "is_scaled"),
    [
        ("pil", "auto", True),
        ("cv2", "auto", False),
        ("cv2", "scaled", True),
        ("pil", "exact", False),
    ],
)
def test_a_model_scales_where_the_resize_averages_or_when_told(
    monkeypatch: pytest.MonkeyPatch, interpolation: str, decode: str, is_scaled: bool
) -> None:
    decoded: list[tuple[int, ...]] = []
    original = image_io.decode_for

    def recorded(*args: object) -> object:
        out = original(*args)  # type: ignore[arg-type]
        decoded.append(out[0].shape[:2])
        return out

    monkeypatch.setattr(image_io, "decode_for", recorded)
    spec = MEAN_COLOR_RECIPE.preprocess.replace(interpolation=interpolation)
    recipe = type(MEAN_COLOR_RECIPE)("classify", "classifier", spec, MEAN_COLOR_RECIPE.labels)
    with Model(recipe, OnnxRuntimeBackend(mean_color_model()), decode=decode) as model:
        result = model(jpeg(160, 328))
    assert decoded == [(20, 41)] if is_scaled else decoded == [(160, 328)]
    assert result.image_hw == (160, 328)
    # The mean of a gradient over the whole range, and of the constant; 1.5 of 255 for the codec.
    np.testing.assert_allclose(result.logits, [0.5, 0.5, 80 / 255], atol=1.5 / 255)


def test_another_word_is_refused() -> None:
    with pytest.raises(UsageError, match=r"auto \| scaled \| exact"):
        Model(MEAN_COLOR_RECIPE, OnnxRuntimeBackend(mean_color_model()), decode="fast")
