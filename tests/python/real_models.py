"""The recipes of the models in tests/data, and small ones made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.engine_file import write_engine_file
from visionrt.labels import read_labels
from visionrt.manifest import Manifest, PlanInfo, TensorInfo
from visionrt.model import Model
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

DATA = Path(__file__).resolve().parents[1] / "data"
IMAGES = DATA / "images"
COFFEE, CHELSEA = IMAGES / "coffee.png", IMAGES / "chelsea.png"
ASTRONAUT, ROCKET = IMAGES / "astronaut.png", IMAGES / "rocket.jpg"
RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)

RECIPES = {
    "efficientnet_lite0": Recipe(
        "classify",
        "classifier",
        PreprocessSpec.parse("imagenet,mean=127,std=128"),
        read_labels("imagenet"),
    ),
    "mobilenet_v2": Recipe(
        "classify", "classifier", PreprocessSpec.parse("imagenet"), read_labels("imagenet")
    ),
    "ssd_mobilenet_v2_coco": Recipe(
        "detect",
        "ssd",
        PreprocessSpec.parse("tf,size=300"),
        read_labels("coco91"),
        head_options={"anchors": "tf_ssd_300"},
    ),
    "selfie_segmentation": Recipe(
        "segment",
        "logits",
        PreprocessSpec(resize="stretch", size=(256, 256)),
        ("background", "person"),
        head_options={"form": "probability", "layout": "nhwc"},
    ),
    "movenet_lightning": Recipe(
        "keypoints",
        "keypoints",
        PreprocessSpec(size=(192, 192), std=(1, 1, 1), pad_value=0, layout="nhwc", dtype="uint8"),
    ),
}


def model_path(name: str) -> Path:
    return DATA / "models" / f"{name}.onnx"


def real(name: str) -> Model:
    """A model of tests/data on ONNX Runtime."""
    return Model(RECIPES[name], OnnxRuntimeBackend(model_path(name)), name=name)


def write_engine(
    path: Path,
    model: bytes,
    recipe: Recipe,
    *,
    twin: bool = True,
    typed: bool = False,
    plans: dict[str, tuple[PlanInfo, bytes]] | None = None,
) -> Path:
    """An engine file with a CPU twin, any plans and, where it is asked for, a typed graph."""
    plans = plans or {}
    graph = onnx.load_from_string(model).graph
    members = {"model.onnx": model, **{name: data for name, (_, data) in plans.items()}}
    if typed:
        members["typed.onnx"] = model
    if not twin:
        del members["model.onnx"]
    manifest = Manifest(
        name=path.stem,
        created_by="tests",
        precision="fp32",
        twin_precision="fp32",
        recipe=recipe,
        inputs=tuple(_info(v) for v in graph.input),
        outputs=tuple(_info(v) for v in graph.output),
        source={"file": "model.onnx", "sha256": ""},
        twin="model.onnx" if twin else None,
        typed_graph="typed.onnx" if typed else None,
        plans=tuple(info for info, _ in plans.values()),
    )
    write_engine_file(path, manifest, members)
    return path


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorInfo(value.name, dtype, tuple(d.dim_value or d.dim_param for d in kind.shape.dim))


def mean_color_model(batch: int | str = "batch", size: int = 8) -> bytes:
    """A classifier of three classes whose logits are the mean of each RGB channel, 0…1."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 3])
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["logits"], keepdims=0)
    graph = helper.make_graph([node], "mean_color", [image], [logits], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


MEAN_COLOR_RECIPE = Recipe(
    "classify",
    "classifier",
    PreprocessSpec(resize="stretch", size=(8, 8)),
    ("red", "green", "blue"),
)


def plain(color_bgr: tuple[int, int, int], height: int = 6, width: int = 9) -> np.ndarray:
    """An image of one colour."""
    return np.full((height, width, 3), color_bgr, np.uint8)
