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
from visionrt.model import Model
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

MODELS = Path(__file__).resolve().parents[1] / "tests" / "data" / "models"


def session(path: Path) -> onnxruntime.InferenceSession:
    """One intra-op thread, like the engine it is compared with."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
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

    def script() -> NDArray[np.int64]:
        resized = cv2.resize(photo, (341, 256), interpolation=cv2.INTER_LINEAR)
        cut = resized[16:240, 58:282, ::-1].astype(np.float32)
        tensor = np.ascontiguousarray(((cut - mean) / std).transpose(2, 0, 1))[None]
        logits = engine.run(None, {"input": tensor})[0][0]
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        return np.argsort(probabilities)[::-1][:5]

    return Case("mobilenet_v2, 500×375 array", {OURS: lambda: model(photo), "script": script})


def cases() -> list[Case]:
    """Every case of this stage; one thread each."""
    cv2.setNumThreads(1)
    return [classifier_case()]
