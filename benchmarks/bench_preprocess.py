"""Preprocessing against what users write with OpenCV, Pillow and NumPy."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness import OURS, Case
from other_python import torchvision_call
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec


def frame(height: int, width: int) -> NDArray[np.uint8]:
    """A noisy image, the same in every run."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cv2_letterbox(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize and pad with OpenCV."""
    h, w = image.shape[:2]
    r = min(side / h, side / w)
    new_w, new_h = round(w * r), round(h * r)
    top, left = (side - new_h) // 2, (side - new_w) // 2
    resized = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    border = (top, side - new_h - top, left, side - new_w - left)
    return cv2.copyMakeBorder(resized, *border, cv2.BORDER_CONSTANT, value=(114,) * 3)


def cv2_idiom(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The usual lines: letterbox, BGR to RGB, HWC to CHW, divide."""
    chw = cv2_letterbox(image, 640)[:, :, ::-1].transpose(2, 0, 1)
    return np.ascontiguousarray(chw, dtype=np.float32)[None] / 255.0


def cv2_blob(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Letterbox, then OpenCV's own fused conversion."""
    return cv2.dnn.blobFromImage(cv2_letterbox(image, 640), 1 / 255.0, swapRB=True)


_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)


def pillow_idiom(image: Image.Image) -> NDArray[np.float32]:
    """Shorter side to 256, centre crop of 224, normalise, CHW."""
    w, h = image.size
    scale = 256 / min(w, h)
    new_w, new_h = int(w * scale), int(h * scale)
    left, top = (new_w - 224) // 2, (new_h - 224) // 2
    resized = image.resize((new_w, new_h), Image.Resampling.BILINEAR)
    cut = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32)
    return np.ascontiguousarray(((cut - _MEAN) / _STD).transpose(2, 0, 1))[None]


def cases() -> list[Case]:
    """Every case of this stage; one thread each."""
    cv2.setNumThreads(1)
    out = []
    full_hd = frame(1080, 1920)
    letterbox = Preprocessor(PreprocessSpec())
    buffer = np.empty((1, 3, 640, 640), np.float32)
    out.append(
        Case(
            "preprocess 1080p to 640×640 letterbox, cv2 mode",
            {
                OURS: lambda: letterbox([full_hd], out=buffer),
                "cv2 + NumPy": lambda: cv2_idiom(full_hd),
                "cv2 + blobFromImage": lambda: cv2_blob(full_hd),
                "cv2.resize alone": lambda: cv2.resize(full_hd, (640, 360)),
            },
            targets={"cv2 + NumPy": 8, "cv2 + blobFromImage": 3, "cv2.resize alone": 1 / 0.9},
            # Each byte of the tensor is written once; the source stays in the cache of a stream.
            floor=lambda: buffer.fill(0.5),
            why="the tensor's 4.9 MB are written once and 2.1 MB of source rows read; the peers "
            "make new arrays, for which they take 2 ms where the C library has kept the pages of "
            "old ones and 5 where not, as it happens",
            tried="two rows resized once for all rows between them, vectors without gathers, "
            "source rows of no weight left unread",
        )
    )
    for dtype in ("float16", "uint8"):
        text = f"yolo,dtype={dtype}" + (",std=1" if dtype == "uint8" else "")
        other = Preprocessor(PreprocessSpec.parse(text))
        target = np.empty((1, 3, 640, 640), dtype)
        out.append(
            Case(
                f"preprocess 1080p to 640×640, {dtype} output",
                {
                    OURS: lambda other=other, target=target: other([full_hd], out=target),
                    "ours, float32": lambda: letterbox([full_hd], out=buffer),
                },
                targets={"ours, float32": 1},
                floor=lambda target=target: target.fill(1),
            )
        )
    photo = frame(375, 500)
    crop = Preprocessor(PreprocessSpec.parse("imagenet"))
    small = np.empty((1, 3, 224, 224), np.float32)
    picture = Image.fromarray(photo)
    out.append(
        Case(
            "preprocess 500×375 to 224 crop, pil mode",
            {
                OURS: lambda: crop([photo], color="rgb", out=small),
                "Pillow + NumPy": lambda: pillow_idiom(picture),
                **torchvision_call("transforms.v2", image=photo, mean=_MEAN, std=_STD),
            },
            targets={"Pillow + NumPy": 5, "torchvision.transforms.v2": 3},
            floor=lambda: small.fill(0.5),
        )
    )
    return out
