"""Images in every form a user may have, and what is not an image."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from real_models import COFFEE, ROCKET

from visionrt import exif, image_io
from visionrt.errors import InputDataError, UsageError

RNG = np.random.default_rng(7)


def scene(height: int = 20, width: int = 30) -> np.ndarray:
    """A smooth BGR picture in which no two corners look alike."""
    y, x = np.mgrid[0:height, 0:width]
    blue, green = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    return np.dstack([blue, green, np.full_like(x, 60)]).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pil(bgr: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))


def test_a_path_a_string_bytes_and_pil_give_the_same_pixels() -> None:
    expected = cv2.imread(str(COFFEE))
    data = COFFEE.read_bytes()
    with Image.open(COFFEE) as picture:
        for source in (COFFEE, str(COFFEE), data, bytearray(data), memoryview(data), picture):
            np.testing.assert_array_equal(image_io.decode(source), expected)


def test_a_jpeg_equals_opencv_and_rgb_is_bgr_turned() -> None:
    bgr = image_io.decode(ROCKET)
    np.testing.assert_array_equal(image_io.decode(ROCKET, "rgb"), bgr[..., ::-1])
    # Two builds of libjpeg-turbo may round the colour conversion differently.
    assert np.abs(bgr.astype(int) - cv2.imread(str(ROCKET))).max() <= 2
    assert bgr.flags.c_contiguous


def test_a_packed_array_is_not_copied() -> None:
    image = scene()
    assert image_io.decode(image) is image
    rows_apart = np.zeros((20, 40, 3), np.uint8)[:, :30]
    assert image_io.decode(rows_apart) is rows_apart


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[..., ::-1],
        lambda a: a[::2, ::3],
        np.asfortranarray,
        lambda a: np.swapaxes(a, 0, 1),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.broadcast_to(a[:, :1], a.shape),
    ],
    ids=["flip", "mirror", "channels", "steps", "fortran", "transposed", "row", "column"],
)
def test_other_strides_are_made_packed(view: object) -> None:
    image = view(scene())  # type: ignore[operator]
    out = image_io.decode(image)
    np.testing.assert_array_equal(out, image)
    assert out.strides[2] == 1
    assert out.strides[1] == 3
    assert out.strides[0] >= 3 * out.shape[1]


def test_a_read_only_array_is_read() -> None:
    image = scene()
    image.flags.writeable = False
    np.testing.assert_array_equal(image_io.decode(image), scene())


def test_grey_and_alpha_arrays() -> None:
    grey = scene()[..., 0]
    expected = np.dstack([grey] * 3)
    np.testing.assert_array_equal(image_io.decode(grey), expected)
    np.testing.assert_array_equal(image_io.decode(grey[..., None]), expected)
    np.testing.assert_array_equal(image_io.decode(grey.T), np.swapaxes(expected, 0, 1))
    with_alpha = np.dstack([scene(), grey])
    np.testing.assert_array_equal(image_io.decode(with_alpha), scene())


@pytest.mark.parametrize(
    ("image", "cure"),
    [
        (scene() / 255.0, "0...255"),
        (scene().astype(np.float32), "astype(np.uint8)"),
        (scene().astype(np.uint16), "257"),
        (scene().astype(np.int8), "uint8"),
        (scene() > 3, "astype(np.uint8)"),
        (np.moveaxis(scene(), -1, 0), "moveaxis"),
        (scene()[None], "list"),
        (np.zeros((0, 5, 3), np.uint8), "uint8"),
        (np.zeros((5, 0, 3), np.uint8), "uint8"),
        (np.zeros((5, 5, 2), np.uint8), "uint8"),
        (np.zeros(5, np.uint8), "uint8"),
        (np.array(["2020-01-01"], "datetime64[D]"), "uint8"),
        (np.array([object()]), "uint8"),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else value,
)
def test_arrays_that_are_no_images_name_the_cure(image: np.ndarray, cure: str) -> None:
    with pytest.raises(InputDataError) as caught:
        image_io.decode(image)
    assert str(image.dtype) in caught.value.got
    assert cure in caught.value.fix


@pytest.mark.parametrize("source", [None, 3, object(), {"a": 1}])
def test_other_objects_are_refused(source: object) -> None:
    with pytest.raises(InputDataError, match="a path, bytes, a NumPy array or a PIL image"):
        image_io.decode(source)  # type: ignore[arg-type]


def test_an_unknown_color_order_is_refused() -> None:
    with pytest.raises(UsageError, match="bgr or rgb"):
        image_io.decode(scene(), "gbr")


def test_16_bit_grey_is_scaled_by_value() -> None:
    values = np.array([[0, 128, 129, 256, 32767, 32896, 65406, 65535]], np.uint16)
    expected = np.round(values.astype(np.float64) * 255 / 65535).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        out = image_io.decode(encoded(Image.fromarray(values), kind))
        np.testing.assert_array_equal(out, np.dstack([expected] * 3))


def test_16_bit_color_png() -> None:
    wide = scene().astype(np.uint16) * 257
    ok, data = cv2.imencode(".png", wide)
    assert ok
    np.testing.assert_array_equal(image_io.decode(data.tobytes()), scene())


def test_float_and_wide_integer_pixels_are_refused() -> None:
    floats = Image.fromarray(np.full((3, 3), 0.5, np.float32))
    wide = Image.fromarray(np.full((3, 3), 70000, np.int32))
    for picture in (floats, wide):
        with pytest.raises(InputDataError, match="8- or 16-bit"):
            image_io.decode(encoded(picture, "TIFF"))


def test_alpha_is_dropped_as_opencv_does() -> None:
    rgba = np.dstack([scene()[..., ::-1], RNG.integers(0, 256, (20, 30), dtype=np.uint8)])
    data = encoded(Image.fromarray(rgba), "PNG")
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(image_io.decode(data), expected)


def test_palette_grey_bilevel_and_animated_files() -> None:
    palette = pil(scene()).convert("P")
    expected = np.asarray(palette.convert("RGB"))[..., ::-1]
    np.testing.assert_array_equal(image_io.decode(encoded(palette, "PNG")), expected)
    transparent = encoded(palette, "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(image_io.decode(transparent), expected)
    grey = Image.fromarray(scene()[..., 1])
    np.testing.assert_array_equal(
        image_io.decode(encoded(grey, "PNG")), np.dstack([scene()[..., 1]] * 3)
    )
    assert image_io.decode(encoded(grey, "JPEG")).shape == (20, 30, 3)
    bilevel = Image.fromarray(scene()[..., 1] > 99)
    assert set(np.unique(image_io.decode(encoded(bilevel, "PNG")))) == {0, 255}
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert image_io.decode(gif)[0, 0].tolist() == [0, 0, 255]


def test_a_cmyk_jpeg_has_the_right_colors() -> None:
    picture = pil(np.full((16, 16, 3), (40, 90, 200), np.uint8)).convert("CMYK")
    out = image_io.decode(encoded(picture, "JPEG", quality=95))
    # JPEG at quality 95 keeps a plain colour within a few steps.
    assert np.abs(out.astype(int) - (40, 90, 200)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    """The file is stored turned, so that applying the tag gives the scene back."""
    inverse = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    stored = _turned_with_cv2(scene(64, 96), inverse)
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    out = image_io.decode(encoded(pil(stored), kind, exif=tags, **options))
    assert out.shape == (64, 96, 3)
    # A gradient survives JPEG at this quality to a few steps; a wrong turn differs by 255.
    assert np.abs(out.astype(int) - scene(64, 96)).max() <= (12 if kind == "JPEG" else 0)


def _turned_with_cv2(image: np.ndarray, orientation: int) -> np.ndarray:
    """What a viewer does for each tag, in OpenCV's words."""
    turns = {
        1: lambda a: a,
        2: lambda a: cv2.flip(a, 1),
        3: lambda a: cv2.rotate(a, cv2.ROTATE_180),
        4: lambda a: cv2.flip(a, 0),
        5: cv2.transpose,
        6: lambda a: cv2.rotate(a, cv2.ROTATE_90_CLOCKWISE),
        7: lambda a: cv2.flip(cv2.transpose(a), -1),
        8: lambda a: cv2.rotate(a, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }
    return np.asarray(turns[orientation](image))


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_found_behind_other_segments(order: str) -> None:
    entries = [(0x010F, 2, 4, b"abc\0"), (0x0112, 3, 1, struct.pack(order + "HH", 6, 0))]
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        tiff += struct.pack(order + "HHI", tag, kind, count) + value
    segment = b"Exif\0\0" + tiff
    exif_segment = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"\xff\xe1ab"
    assert exif.jpeg_orientation(b"\xff\xd8" + comment + b"\xff" + exif_segment) == 6
    scan = b"\xff\xda" + struct.pack(">H", 2)
    assert exif.jpeg_orientation(b"\xff\xd8" + scan + exif_segment) == 1
    for cut in range(len(exif_segment) - 1):
        assert exif.jpeg_orientation(b"\xff\xd8" + comment + exif_segment[:cut]) == 1


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_a_nonsense_orientation_is_ignored(value: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = value
    assert image_io.decode(encoded(pil(scene()), "JPEG", exif=tags)).shape == (20, 30, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20000), (20000, 1)])
def test_extreme_shapes(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    assert image_io.decode(image) is image
    np.testing.assert_array_equal(image_io.decode(encoded(pil(image), "PNG")), image)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    for source in (text, empty, b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" * 9):
        with pytest.raises(InputDataError):
            image_io.decode(source)
    with pytest.raises(InputDataError, match="no such file"):
        image_io.decode(tmp_path / "absent.png")
    with pytest.raises(InputDataError, match="is a directory"):
        image_io.decode(tmp_path)
    with pytest.raises(InputDataError, match="Download"):
        image_io.decode("https://example.com/a.jpg")
    with pytest.raises(InputDataError):
        image_io.decode("a\0b.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_every_truncation_is_an_error_of_ours(kind: str) -> None:
    data = encoded(pil(cv2.resize(cv2.imread(str(COFFEE)), (64, 48))), kind)
    for share in (0.02, 0.1, 0.3, 0.5, 0.8):
        with pytest.raises(InputDataError):
            image_io.decode(data[: int(len(data) * share)])


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about broken TIFF tags
def test_flipped_bytes_give_an_image_or_an_error_of_ours() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encoded(pil(scene()), kind)
        for _ in range(60):
            broken = bytearray(data)
            for at in RNG.integers(0, len(data), 3):
                broken[at] ^= int(RNG.integers(1, 256))
            try:
                out = image_io.decode(bytes(broken))
            except InputDataError:
                continue
            assert out.dtype == np.uint8
            assert out.shape[2] == 3


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    import zlib

    bomb = b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", zlib.crc32(chunk[4:]))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(InputDataError, match="pixels"):
        image_io.decode(bomb)


def test_a_huge_jpeg_is_refused_by_its_header() -> None:
    data = bytearray(encoded(pil(scene()), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(InputDataError, match="65000x65000"):
        image_io.decode(bytes(data))


def test_write_follows_the_ending_and_refuses_others(tmp_path: Path) -> None:
    image_io.write(tmp_path / "a.png", scene())
    np.testing.assert_array_equal(image_io.decode(tmp_path / "a.png"), scene())
    image_io.write(tmp_path / "a.JPG", scene())
    assert (tmp_path / "a.JPG").read_bytes()[:3] == b"\xff\xd8\xff"
    for name in ("a.engine", "a", "a.pdf2"):
        with pytest.raises(InputDataError, match="ending"):
            image_io.write(tmp_path / name, scene())
    with pytest.raises(InputDataError, match="to write"):
        image_io.write(tmp_path / "no" / "a.png", scene())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.JPG", "a.png"]
