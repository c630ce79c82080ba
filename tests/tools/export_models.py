"""Exports published architectures with random weights, in a Python that has torch or Keras.

Run as ``python export_models.py NAME OUT.onnx``; see ``test_real_exports.py``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")


def declare_operators() -> None:
    """Give torch the operators of torchvision where its library does not load.

    That is so for a torchvision built for CUDA beside a torch for the CPU. Tracing needs only that
    they run; the exporters replace them by ONNX's.
    """
    import torch

    try:
        torch.ops.load_library(_library())
        return
    except OSError:
        pass
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
        "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"
    )
    for name in ("roi_pool", "ps_roi_align", "ps_roi_pool"):
        library.define(f"{name}(Tensor input) -> Tensor")
        library.define(f"_{name}_backward(Tensor input) -> Tensor")
    # Only their names are asked for, when torchvision is imported.
    for name in ("qnms", "deform_conv2d", "_deform_conv2d_backward", "_roi_align_backward"):
        library.define(f"{name}(Tensor input) -> Tensor")

    def nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
        order, kept = scores.argsort(descending=True), []
        while len(order):
            kept.append(order[0])
            a, b = dets[order[0]], dets[order[1:]]
            low, high = torch.maximum(a[:2], b[:, :2]), torch.minimum(a[2:], b[:, 2:])
            shared = (high - low).clamp(min=0).prod(1)
            areas = (b[:, 2:] - b[:, :2]).prod(1) + (a[2:] - a[:2]).prod()
            order = order[1:][shared / (areas - shared) <= iou_threshold]
        return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)

    def roi_align(features: Any, rois: Any, _scale: float, h: int, w: int, *_: Any) -> Any:
        return features.new_zeros((len(rois), features.shape[1], h, w))

    library.impl("nms", nms, "CPU")
    library.impl("roi_align", roi_align, "CPU")
    globals()["_kept_alive"] = library


def operators_are_there() -> bool:
    """Stands for torchvision's own question, in a form that torch can script."""
    return True


def _library() -> str:
    import importlib.util

    found = importlib.util.find_spec("torchvision")
    assert found is not None
    assert found.origin is not None
    # ``_C.so``, and ``_C_stable.so`` of versions for torch's stable interface.
    return str(next(Path(found.origin).parent.glob("_C*.so"), "_C.so"))


def torchvision_model(name: str) -> tuple[Any, int, list[str]]:
    """The model, its side in pixels and the names of its outputs."""
    import torch

    declare_operators()
    from torchvision import models

    for module in ("torchvision.extension", "torchvision.ops.roi_align"):
        sys.modules[module]._has_ops = operators_are_there  # type: ignore[attr-defined]
    plain = {"weights": None, "weights_backbone": None}
    detection = models.detection

    class Maps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            segmentation = models.segmentation
            self.inner = segmentation.deeplabv3_mobilenet_v3_large(**plain, num_classes=21)

        def forward(self, image: Any) -> Any:
            return self.inner(image)["out"]

    class RawHead(torch.nn.Module):
        """Logits and codes of the anchors, of an image that is normalised already."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = detection.retinanet_resnet50_fpn(**plain)

        def forward(self, image: Any) -> Any:
            found = self.inner.head(list(self.inner.backbone(image).values()))
            return found["cls_logits"], found["bbox_regression"]

    makers: dict[str, tuple[Callable[[], Any], int, list[str]]] = {
        "retinanet": (RawHead, 320, ["logits", "codes"]),
        "resnet18": (lambda: models.resnet18(weights=None), 224, ["scores"]),
        "deeplabv3": (Maps, 256, ["out"]),
        "ssdlite": (
            lambda: detection.ssdlite320_mobilenet_v3_large(**plain),
            320,
            ["boxes", "scores", "labels"],
        ),
        "faster_rcnn": (
            lambda: detection.fasterrcnn_mobilenet_v3_large_320_fpn(**plain),
            320,
            ["boxes", "labels", "scores"],
        ),
        "mask_rcnn": (
            lambda: detection.maskrcnn_resnet50_fpn(**plain, min_size=256, max_size=256),
            256,
            ["boxes", "labels", "scores", "masks"],
        ),
    }
    make, side, names = makers[name]
    torch.manual_seed(0)
    return make().eval(), side, names


def evened_out(model: Any, size_hw: tuple[int, int]) -> Any:
    """The model with statistics of pictures in its normalisations.

    Through many layers of random weights nothing of the image is left otherwise.
    """
    import torch

    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    # Blocks, so that pictures differ on coarse levels too, over ImageNet's std.
    blocks = 4.5 * torch.rand(32, 3, 8, 8) - 2.1
    for axis, side in zip((2, 3), size_hw, strict=True):
        blocks = blocks.repeat_interleave(side // 8, axis)
    with torch.no_grad():
        model.train()(blocks)
    return model.eval()


def yolov5_model(name: str) -> tuple[Any, tuple[int, int], list[str]]:
    """YOLOv5n: its raw maps, or its boxes decoded. Its height and width in place of a side."""
    import torch
    import yolov5
    from yolov5.models.yolo import DetectionModel

    declare_operators()
    size = (192, 320)
    torch.manual_seed(0)
    configuration = Path(yolov5.__file__).parent / "models" / "yolov5n.yaml"
    model = evened_out(DetectionModel(str(configuration)), size)

    class Part(torch.nn.Module):
        """Boxes, or maps, of the pair that the model gives."""

        def forward(self, image: Any) -> Any:
            boxes, maps = model(image)
            return tuple(maps) if name == "yolov5_maps" else boxes

    part = Part().eval()
    part.inner = model  # that the exporter knows its weights
    return part, size, ["fine", "middle", "coarse"] if name == "yolov5_maps" else ["boxes"]


# Sides of the image: of 320, strides of the coarsest level are no whole numbers.
EFFICIENTDETS = {"efficientdet_lite0": 320, "efficientdet_d0": 256}


def efficientdet_model(name: str) -> tuple[Any, int, list[str]]:
    """Maps by level of Lite0, joined logits and codes of D0; as :func:`torchvision_model`."""
    import torch
    from effdet import EfficientDet, get_efficientdet_config

    declare_operators()
    side, levels = EFFICIENTDETS[name], range(3, 8)
    config = get_efficientdet_config(f"tf_{name}")
    config.image_size = (side, side)
    config.backbone_args = {"drop_path_rate": 0.0}  # nor do layers drop out while they are evened

    class Joined(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: Any) -> Any:
            return tuple(
                torch.cat([m.permute(0, 2, 3, 1).reshape(1, -1, n) for m in maps], 1)
                for n, maps in zip((config.num_classes, 4), self.inner(image), strict=True)
            )

    torch.manual_seed(0)
    model = evened_out(EfficientDet(config, pretrained_backbone=False), (side, side))
    if name == "efficientdet_d0":
        return Joined(model), side, ["logits", "codes"]
    return model, side, [f"{kind}{level}" for kind in ("logits", "codes") for level in levels]


# What its exporter is told besides the image's size.
ULTRALYTICS: dict[str, dict[str, Any]] = {
    "yolov8n": {},
    "yolo26n": {"nms": False},  # the final boxes of its end-to-end branch
    "yolo11n-seg": {},
    "yolo11n-pose": {},
    "yolo11n-obb": {},
    "yolo11n-cls": {},
}


def export_by_ultralytics(name: str, path: str) -> None:
    """One of its models by its own exporter, which names the file in the working folder itself."""
    import torch
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO(f"{name}.yaml")
    evened_out(model.model, (256, 256))
    os.chdir(Path(path).parent)
    options = ULTRALYTICS[name]
    made = model.export(format="onnx", imgsz=256, opset=17, simplify=False, **options)
    Path(made).replace(path)


def save_by_model_api(path: str) -> None:
    """The efficientnet_lite0 of the tests, with what OpenVINO's Model API writes of it."""
    from model_api.adapters import ONNXRuntimeAdapter
    from model_api.models import Model

    given = Path(__file__).parents[1] / "data" / "models" / "efficientnet_lite0.onnx"
    told = {
        "mean_values": [127.0] * 3,
        "scale_values": [128.0] * 3,
        "reverse_input_channels": True,
        "labels": [f"class_{i}" for i in range(1000)],
    }
    adapter = ONNXRuntimeAdapter(str(given))
    Model.create_model(adapter, model_type="Classification", configuration=told).save(path)


def main(name: str, path: str) -> None:
    """Write one model."""
    if name == "model_api":
        save_by_model_api(path)
        return
    if name in ULTRALYTICS:
        export_by_ultralytics(name, path)
        return
    if name == "keras_mobilenet_v2":
        import keras
        import numpy as np

        model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3))
        model(np.zeros((1, 96, 96, 3), np.float32))
        model.export(path, format="onnx", verbose=False)
        return
    import torch

    if name.startswith("yolov5"):
        model, size, names = yolov5_model(name)
    else:
        make = efficientdet_model if name in EFFICIENTDETS else torchvision_model
        model, side, names = make(name)
        size = (side, side)
    example = (torch.rand(1, 3, *size),)
    torch.onnx.export(
        model, example, path, input_names=["image"], output_names=names, opset_version=17,
        dynamo=False,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
