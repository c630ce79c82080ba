"""JPEG files to a tensor, and through a stream, against the loops that users write."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from harness import OURS, Case
from visionrt import image_io
from visionrt.cpu_way import cpu_way
from visionrt.labels import read_labels
from visionrt.model import Model
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
FILES = 64
QUALITY = 85
SIZE_WH = (1920, 1080)
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)


def jpeg_files(folder: Path, count: int) -> list[Path]:
    """1080p JPEGs of the larger photos, in turn."""
    photos = []
    for path in sorted((DATA / "images" / "labelled").glob("*.webp")):
        with Image.open(path) as picture:
            if picture.size[0] >= 1024:
                photos.append(picture.convert("RGB").resize(SIZE_WH, Image.Resampling.LANCZOS))
    out = []
    for index in range(count):
        out.append(folder / f"{index:03d}.jpg")
        photos[index % len(photos)].save(out[-1], quality=QUALITY)
    return out


def cv2_crop(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shorter side to 256, centre crop of 224, RGB, normalise, CHW."""
    h, w = image.shape[:2]
    scale = 256 / min(h, w)
    new_w, new_h = int(w * scale), int(h * scale)
    left, top = (new_w - 224) // 2, (new_h - 224) // 2
    resized = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    cut = cv2.cvtColor(resized[top : top + 224, left : left + 224], cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(((cut.astype(np.float32) - _MEAN) / _STD).transpose(2, 0, 1))[None]


def tensor_case(path: Path) -> Case:
    """One file to the tensor of a classifier; the floor is the decoder at an eighth."""
    preprocess = Preprocessor(PreprocessSpec.parse("imagenet"))
    out = np.empty((1, 3, 224, 224), np.float32)
    data = path.read_bytes()

    def ours() -> None:
        image, _ = image_io.decode_for(path, "bgr", preprocess.jpeg_divisor)
        preprocess.fill([image], "bgr", out)

    def exact() -> None:
        preprocess.fill([image_io.decode(path)], "bgr", out)

    return Case(
        "1080p JPEG file to a 224 tensor",
        {
            OURS: ours,
            "cv2.imread + NumPy": lambda: cv2_crop(cv2.imread(str(path))),
            'ours, decode="exact"': exact,
        },
        targets={"cv2.imread + NumPy": 3},
        # What is left there is reading the file and decoding its Huffman codes.
        floor=lambda: simplejpeg.decode_jpeg(data, "BGR", min_height=135, min_width=240),
        why="the Huffman codes of the whole file are decoded at any scale",
        tried="decoding at a half, a quarter or an eighth of the size; other scales took longer",
    )


def stream_case(files: list[Path]) -> Case:
    """All files through a classifier; the floor is the bare decoder and engine on every core."""
    graph = DATA / "models" / "mobilenet_v2.onnx"
    recipe = Recipe(
        "classify", "classifier", PreprocessSpec.parse("imagenet"), read_labels("imagenet")
    )
    way = cpu_way(None, None, None)
    model = Model(
        recipe,
        way.open(graph),
        workers=max(2, way.stream.streams),
        open_for_streams=lambda: way.open_for_streams(graph),
    )
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    tensor = np.zeros((1, 3, 224, 224), np.float32)
    engine = way.open_for_streams(graph)

    def loop() -> None:
        for path in files:
            logits = session.run(None, {"input": cv2_crop(cv2.imread(str(path)))})[0][0]
            shares = np.exp(logits - logits.max())
            np.argsort(shares / shares.sum())[::-1][:5]

    def ours() -> None:
        for _ in model.stream(files):
            pass

    runs = [engine.bind("input", tensor.copy()) for _ in range(way.stream.streams)]  # type: ignore[attr-defined]
    encoded = [path.read_bytes() for path in files]

    def share(index: int) -> None:
        for data in encoded[index :: len(runs)]:
            simplejpeg.decode_jpeg(data, "BGR", min_height=270, min_width=480)
            runs[index]()

    def decoder_and_engine() -> None:
        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(share, range(len(runs))))

    return Case(
        f"stream of {len(files)} 1080p JPEGs, mobilenet_v2, all cores",
        {OURS: ours, "imread, NumPy, session.run": loop},
        rounds=5,
        targets={"imread, NumPy, session.run": 2.5},
        floor=decoder_and_engine,
        why="the floor is the decoder and the engine on every core, with nothing between them",
        tried="an engine per core, decoding at a smaller scale, frames overlapped in order",
    )


def cases() -> list[Case]:
    """Every case of this stage; the first on one thread."""
    cv2.setNumThreads(1)
    folder = Path(tempfile.mkdtemp(prefix="visionrt-bench-"))
    atexit.register(shutil.rmtree, folder)
    files = jpeg_files(folder, FILES)
    return [tensor_case(files[0]), stream_case(files)]
