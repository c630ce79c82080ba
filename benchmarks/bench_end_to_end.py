"""A frame through the whole CPU path against a script with OpenCV and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bench_preprocess import frame
from harness import OURS, Case
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.heads.anchor_options import anchors_from
from visionrt.model import Model
from visionrt.preprocess import Preprocessor
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

MODELS = Path(__file__).resolve().parents[1] / "tests" / "data" / "models"


def session(path: Path) -> onnxruntime.InferenceSession:
    """One intra-op thread, like the engine it is compared with."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def classifier_case() -> Case:
    """A photo-sized array through mobilenet_v2."""
    path = MODELS / "mobilenet_v2.onnx"
    spec = PreprocessSpec.parse("imagenet,interpolation=cv2")
    recipe = Recipe("classify", "classifier", spec)
    model = Model(recipe, OnnxRuntimeBackend(path, threads=1))
    engine = session(path)
    photo = frame(375, 500)
    mean, std = (np.array(v, np.float32) for v in (spec.mean, spec.std))
    tensor = np.zeros((1, 3, 224, 224), np.float32)

    def script() -> NDArray[np.int64]:
        resized = cv2.resize(photo, (341, 256), interpolation=cv2.INTER_LINEAR)
        cut = resized[16:240, 58:282, ::-1].astype(np.float32)
        chw = np.ascontiguousarray(((cut - mean) / std).transpose(2, 0, 1))[None]
        logits = engine.run(None, {"input": chw})[0][0]
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        return np.argsort(probabilities)[::-1][:5]

    return Case(
        "mobilenet_v2, 500×375 array",
        {OURS: lambda: model(photo), "script": script},
        targets={"script": 1.0},
        floor=lambda: engine.run(None, {"input": tensor}),
    )


def glue_case() -> Case:
    """What a call takes beyond the engine and the preprocess kernel."""
    path = MODELS / "mobilenet_v2.onnx"
    recipe = Recipe("classify", "classifier", PreprocessSpec.parse("imagenet"))
    model = Model(recipe, OnnxRuntimeBackend(path, threads=1))
    engine = session(path)
    photo = frame(375, 500)
    preprocess = Preprocessor(recipe.preprocess)
    tensor = preprocess([photo])

    def parts() -> None:
        preprocess.fill([photo], "bgr", tensor)
        engine.run(None, {"input": tensor})

    return Case(
        "glue of a call, mobilenet_v2",
        {OURS: lambda: model(photo), "session.run + kernel": parts},
        rounds=200,
        gap_us=60,
        why="an engine of some milliseconds pushes the glue's code and data out of the caches",
        tried="a shorter way for one array: no lists, no lock, no geometry of a size just seen; "
        "tests/test_instructions.py counts what is left",
    )


def detector_case() -> Case:
    """A 1080p frame through an SSD; the floor is its engine alone."""
    path = MODELS / "ssd_mobilenet_v2_coco.onnx"
    spec = PreprocessSpec.parse("tf,size=300")
    recipe = Recipe("detect", "ssd", spec, head_options={"anchors": "tf_ssd_300"})
    model = Model(recipe, OnnxRuntimeBackend(path, threads=1))
    engine = session(path)
    (info,) = engine.get_inputs()
    image = cv2.imread(str(MODELS.parent / "images" / "rocket.jpg"))
    photo = cv2.resize(image, (1920, 1080))
    anchors = anchors_from(recipe).all()

    def tensor_of(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        small = cv2.cvtColor(cv2.resize(image, (300, 300)), cv2.COLOR_BGR2RGB)
        scaled = small.astype(np.float32) / 127.5 - 1
        return np.ascontiguousarray(scaled.transpose(2, 0, 1) if spec.layout == "nchw" else scaled)[
            None
        ]

    def script() -> list[int]:
        outputs = engine.run(None, {info.name: tensor_of(photo)})
        codes, scores = sorted((output[0] for output in outputs), key=lambda o: o.shape[1])
        class_ids = scores[:, 1:].argmax(1) + 1
        best = scores[np.arange(len(scores)), class_ids]
        keep = best > recipe.confidence
        chosen, code = anchors[keep], codes[keep] / np.array([10, 10, 5, 5], np.float32)
        yx = code[:, :2] * chosen[:, 2:] + chosen[:, :2]
        hw = np.exp(code[:, 2:]) * chosen[:, 2:]
        boxes = np.concatenate([yx - hw / 2, hw], 1)[:, [1, 0, 3, 2]] * [1920, 1080, 1920, 1080]
        return list(
            cv2.dnn.NMSBoxesBatched(
                boxes.tolist(),
                best[keep].tolist(),
                class_ids[keep].tolist(),
                recipe.confidence,
                recipe.iou,
            )
        )

    ready = tensor_of(photo)
    return Case(
        "ssd_mobilenet_v2_coco, 1080p array",
        {OURS: lambda: model(photo), "script": script},
        targets={"script": 1.25},
        floor=lambda: engine.run(None, {info.name: ready}),
        most_floors=1 / 0.95,
        why="both sides run the same engine, which is nearly all of either's time",
        tried="one fused preprocess kernel, native decoding and NMS",
    )


def segmenter_case() -> Case:
    """A 1080p frame through a segmenter; the floor is its engine alone."""
    path = MODELS / "selfie_segmentation.onnx"
    spec = PreprocessSpec(resize="stretch", size=(256, 256))
    recipe = Recipe(
        "segment", "logits", spec, head_options={"form": "probability", "layout": "nhwc"}
    )
    model = Model(recipe, OnnxRuntimeBackend(path, threads=1))
    engine = session(path)
    (info,) = engine.get_inputs()
    photo = frame(1080, 1920)

    def script() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        small = cv2.cvtColor(cv2.resize(photo, (256, 256)), cv2.COLOR_BGR2RGB)
        chw = np.ascontiguousarray((small.astype(np.float32) / 255).transpose(2, 0, 1))[None]
        share = engine.run(None, {info.name: chw})[0].reshape(256, 256)
        shares = cv2.resize(share, (1920, 1080))
        mask = (shares >= 0.5).astype(np.uint8)
        return mask, np.where(mask, shares, 1 - shares)

    ready = np.zeros((1, 3, 256, 256), np.float32)
    return Case(
        "selfie_segmentation, 1080p array",
        {OURS: lambda: model(photo), "script": script},
        targets={"script": 1.0},
        floor=lambda: engine.run(None, {info.name: ready}),
    )


def cases() -> list[Case]:
    """Every case of this stage; one thread each."""
    cv2.setNumThreads(1)
    return [glue_case(), classifier_case(), detector_case(), segmenter_case()]
