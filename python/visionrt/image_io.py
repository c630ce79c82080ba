"""Whatever the caller has becomes one (height, width, 3) uint8 array, or a clear error.

JPEG goes through simplejpeg; all else, and the JPEGs it cannot decode, through Pillow. EXIF
orientation is applied. As ``cv2.imread`` does, alpha is dropped, not composited; 16-bit grey is
scaled to 8 bits; of an animation the first frame is taken; ICC profiles are ignored.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray

from visionrt import _fastpath, dlpack, exif
from visionrt.atomic import write_bytes
from visionrt.errors import InputDataError, UsageError, VisionrtError

if TYPE_CHECKING:
    import PIL.Image

ImageSource: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, bytearray, memoryview, NDArray[Any], "PIL.Image.Image"
]
COLORS = ("bgr", "rgb")
# 512 MiB as RGB: past any camera, and the size from which Pillow refuses too.
MAX_PIXELS = 178_956_970
_JPEG_MAGIC = b"\xff\xd8\xff"


def decode(source: ImageSource, color: str = "bgr") -> NDArray[np.uint8]:
    """Read an image. Blocks; releases the GIL while it decodes.

    Args:
        source: a path, encoded bytes, a PIL image, or a uint8 array of shape (h, w), (h, w, 1),
            (h, w, 3) or (h, w, 4), whose channels are in the order ``color`` (then alpha). Arrays
            are NumPy's, or of any library that gives host memory by DLPack.
        color: channel order of the result, ``bgr`` or ``rgb``.

    Returns:
        (h, w, 3) uint8 with contiguous rows. An array that already is so is returned as it is.

    Raises:
        InputDataError: not an image, damaged, too large, or an array of another dtype or shape.
        UsageError: ``color`` is neither.
    """
    if color not in COLORS:
        raise UsageError("color: bgr or rgb", got=repr(color), fix='Give color="bgr" or "rgb".')
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, (str, os.PathLike)):
        return _from_bytes(_read(source), color, os.fspath(source))[0]
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), color, "the given bytes")[0]
    if _is_pil(source):
        with _own_errors(b"", "the given PIL image"):
            return _from_pil(source, color, "the given PIL image")
    if dlpack.is_on_host(source):
        return _from_array(dlpack.host_array(source))
    raise InputDataError(
        "an image: a path, bytes, a NumPy array or a PIL image",
        got=f"a {type(source).__module__}.{type(source).__qualname__}",
        fix="Convert it, e.g. to a (height, width, 3) uint8 array.",
    )


def decode_for(
    source: ImageSource, color: str, divisor_for: Callable[[int, int], int]
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read an image; a JPEG may come out smaller, which takes less time. Blocks.

    Args:
        source, color: as of :func:`decode`.
        divisor_for: told the height and width of an upright JPEG, gives what its sides are divided
            by while it is decoded: 1, 2, 4 or 8. Sides are rounded up.

    Returns:
        The image as :func:`decode` gives it, and the height and width it has undivided.

    Raises:
        InputDataError, UsageError: as :func:`decode`.
    """
    data, where = b"", ""
    if isinstance(source, (str, os.PathLike)):
        data, where = _read(source), os.fspath(source)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data, where = bytes(source), "the given bytes"
    if not where or color not in COLORS:
        pixels = decode(source, color)
        return pixels, (pixels.shape[0], pixels.shape[1])
    return _from_bytes(data, color, where, divisor_for)


def is_encoded(source: ImageSource) -> bool:
    """Whether :func:`decode` has something to decode, rather than an array to check."""
    if isinstance(source, np.ndarray):
        return False
    return not any(hasattr(source, n) for n in ("__dlpack_device__", "__cuda_array_interface__"))


def write(path: str | os.PathLike[str], image: NDArray[np.uint8]) -> None:
    """Write a (h, w, 3) uint8 BGR array; the format follows the ending. Replaces atomically.

    Raises:
        InputDataError: an ending that Pillow cannot write, or the file cannot be written.
    """
    from PIL import Image

    target = Path(path)
    kind = Image.registered_extensions().get(target.suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise InputDataError(
            "a file name that ends in a picture format, e.g. .jpg or .png",
            got=repr(target.name),
            fix="Change the ending.",
        )
    buffer = io.BytesIO()
    try:
        picture = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
        picture.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}))
    except (OSError, ValueError) as error:
        raise InputDataError(
            f"a picture that fits the format {kind}", got=str(error), fix="Use .png."
        ) from error
    write_bytes(target, buffer.getvalue())


def _from_array(image: NDArray[Any]) -> NDArray[np.uint8]:
    shape = _fastpath.image_shape(image)
    if shape is None:
        raise _bad_array(image)
    height, width, channels, is_packed = shape
    if channels == 3 and is_packed:
        return image
    if channels == 1:
        return np.repeat(image.reshape(height, width, 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _bad_array(image: NDArray[Any]) -> InputDataError:
    if image.dtype == np.uint8 and image.ndim == 4:
        fix = "For a batch, give a list of (height, width, 3) arrays."
    elif image.dtype == np.uint8 and image.ndim == 3 and image.shape[0] in (1, 3, 4):
        fix = "Move the channels last: np.moveaxis(image, 0, -1)."
    elif image.dtype == np.uint16:
        fix = "Scale to 8 bits: (image / 257).round().astype(np.uint8)."
    elif image.dtype.kind == "f":
        fix = "Scale to 0...255 if it is 0...1, then image.round().astype(np.uint8)."
    elif image.dtype == np.bool_:
        fix = "Convert it: image.astype(np.uint8) * 255."
    else:
        fix = "Give pixels in 0...255 as uint8, height and width first."
    return InputDataError(
        "a uint8 array of shape (height, width), (height, width, 1), (height, width, 3) or "
        "(height, width, 4), no side 0",
        got=f"{image.dtype} {image.shape}",
        fix=fix,
    )


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        remote = "Download it first." if "://" in os.fspath(path) else "Check the path."
        raise InputDataError(
            f"an image at {os.fspath(path)!r}",
            got=(getattr(error, "strerror", None) or str(error)).lower(),
            fix=remote,
        ) from error


def _from_bytes(
    data: bytes, color: str, where: str, divisor_for: Callable[[int, int], int] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The image, and its size had nothing been divided; see :func:`decode_for`."""
    if data[:3] == _JPEG_MAGIC:
        import simplejpeg

        try:
            height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
            _check_size(width, height, where)
            if colorspace not in ("CMYK", "YCCK"):
                orientation = exif.jpeg_orientation(data)
                upright_hw = (width, height) if orientation >= 5 else (height, width)
                divisor = 1 if divisor_for is None else divisor_for(*upright_hw)
                # The decoder takes its smallest scale of at least these sides.
                sides = {"min_height": -(-height // divisor), "min_width": -(-width // divisor)}
                scale = sides if divisor > 1 else {}
                pixels = simplejpeg.decode_jpeg(data, color.upper(), **scale)
                return np.ascontiguousarray(exif.upright(pixels, orientation)), upright_hw
        except ValueError as error:
            if isinstance(error, InputDataError):
                raise
            # Pillow decodes some that libjpeg-turbo refuses, and says what is wrong with others.
    from PIL import Image

    with _own_errors(data, where), Image.open(io.BytesIO(data)) as picture:
        pixels = _from_pil(picture, color, where)
    return pixels, (pixels.shape[0], pixels.shape[1])


@contextlib.contextmanager
def _own_errors(data: bytes, where: str) -> Iterator[None]:
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except VisionrtError:
        raise
    except UnidentifiedImageError as error:
        raise InputDataError(
            f"{where} to be an image in a known format (JPEG, PNG, WebP, TIFF, BMP, GIF, ...)",
            got=f"{len(data)} bytes of another kind" if data else "an empty file",
            fix="Check the file; convert it to JPEG or PNG if it is an image.",
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(where, str(error)) from error
    # Pillow's decoders raise anything on damaged files, SyntaxError and struct.error included.
    except Exception as error:
        raise _damaged(where, str(error)) from error


def _from_pil(picture: PIL.Image.Image, color: str, where: str) -> NDArray[np.uint8]:
    from PIL import ImageOps

    _check_size(*picture.size, where)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return np.repeat(_grey_to_8_bit(np.asarray(picture), where)[..., None], 3, axis=2)
    if picture.mode == "F":
        raise _damaged(where, "floating point pixels")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    pixels = np.asarray(picture.convert("RGB"))
    return pixels if color == "rgb" else np.ascontiguousarray(pixels[..., ::-1])


def _grey_to_8_bit(pixels: NDArray[Any], where: str) -> NDArray[np.uint8]:
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 65535):
        raise _damaged(where, "32-bit pixels outside 0...65535")
    # 65535 = 255 * 257, so this is the exact rounding of v * 255 / 65535.
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _check_size(width: int, height: int, where: str) -> None:
    if width < 1 or height < 1:
        raise _damaged(where, f"{width}x{height} pixels")
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width}x{height}")


def _too_large(where: str, got: str) -> InputDataError:
    return InputDataError(
        f"{where} to have at most {MAX_PIXELS} pixels", got=got, fix="Scale it down, or tile it."
    )


def _damaged(where: str, got: str) -> InputDataError:
    return InputDataError(
        f"{where} to be a whole 8- or 16-bit image",
        got=got or "a damaged file",
        fix="The file is damaged or of a rare kind: save it again as JPEG or PNG.",
    )


def _is_pil(source: object) -> TypeGuard[PIL.Image.Image]:
    # Without importing Pillow for callers who never use it.
    return any(c.__module__ == "PIL.Image" and c.__name__ == "Image" for c in type(source).mro())
