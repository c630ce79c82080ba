"""Small models and pictures for tests that run the whole conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper
from PIL import Image

SIZE = 16
CLASSES = 4


def tiny_classifier(*, seed: int = 0, batch: int | str = "n", tail: str = "") -> ModelProto:
    """Conv → Relu → pool → Gemm: 4 class scores of a [n, 3, 16, 16] image.

    ``tail`` names an extra operator between the pool and the Gemm, to make a bad model of it.
    """
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "b": rng.normal(size=8).astype(np.float32),
        "fc": rng.normal(size=(CLASSES, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flatten"),
        helper.make_node(tail or "Identity", ["flat"], ["last"], name="tail"),
        helper.make_node("Gemm", ["last", "fc"], ["scores"], name="head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: ModelProto, path: Path) -> Path:
    """Write a model and return its path."""
    path.write_bytes(model.SerializeToString())
    return path


def save_pictures(folder: Path, count: int = 4, *, seed: int = 0) -> Path:
    """Write a few random PNG pictures and return their folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(count):
        pixels = rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture{index}.png")
    return folder
