"""Anchors and decoding of the libraries that trained models come from, in a Python that has them.

Run as ``python export_decodes.py anchors OUT.npz`` or ``… NAME RAW.npz OUT.npz THRESHOLD``; see
``test_real_exports.py``. Boxes are x0, y0, x1, y1 in pixels.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from export_models import EFFICIENTDETS, ULTRALYTICS, declare_operators, yolov5_model

# Of EfficientDet's sizes and others; of 320, 800 and 1344 some levels have no whole strides.
SIZES = ((512, 512), (320, 320), (384, 640), (800, 1344), (100, 203))
LEVELS = range(3, 8)


def grids_of(size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of cells of each level: halved, rounded up."""
    grids, (height, width) = [], size_hw
    for _ in range(LEVELS[-1]):
        height, width = (height + 1) // 2, (width + 1) // 2
        grids.append((height, width))
    return grids[LEVELS[0] - 1 :]


def torchvision_anchors(size_hw: tuple[int, int]) -> Any:
    """RetinaNet's, as a list of one tensor for one image."""
    import torch

    declare_operators()
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.retinanet import _default_anchorgen

    image = ImageList(torch.zeros(1, 3, *size_hw), [size_hw])
    return _default_anchorgen()(image, [torch.zeros(1, 1, *grid) for grid in grids_of(size_hw)])


def effdet_anchors(name: str, size_hw: tuple[int, int]) -> Any:
    """Of a published model, y0, x0, y1, x1, as a tensor."""
    declare_operators()
    from effdet import get_efficientdet_config
    from effdet.anchors import Anchors

    config = get_efficientdet_config(name)
    config.image_size = size_hw
    return Anchors.from_config(config).boxes


def all_anchors() -> dict[str, np.ndarray]:
    """By ``PRESET HEIGHT WIDTH``."""
    published = {
        "efficientdet": "tf_efficientdet_d0",
        "efficientdet_lite": "tf_efficientdet_lite0",
        "efficientdet_d7": "tf_efficientdet_d7",
        "efficientdet_d7x": "tf_efficientdet_d7x",
    }
    found = {}
    for size in SIZES:
        of_size = f"{size[0]} {size[1]}"
        found[f"retinanet_torchvision {of_size}"] = torchvision_anchors(size)[0].numpy()
        for preset, name in published.items():
            found[f"{preset} {of_size}"] = effdet_anchors(name, size).numpy()[:, [1, 0, 3, 2]]
    return found


def retinanet(raw: dict[str, Any], threshold: float) -> dict[str, np.ndarray]:
    """Every box of torchvision's RetinaNet above the threshold, none suppressed."""
    import torch

    declare_operators()
    from torchvision.models.detection import retinanet_resnet50_fpn

    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    model.score_thresh, model.nms_thresh = threshold, 1.0
    model.detections_per_img = model.topk_candidates = 10**6
    size = (320, 320)
    counts = [9 * height * width for height, width in grids_of(size)]
    parts = {
        key: list(torch.from_numpy(raw[name]).split(counts, 1))
        for key, name in (("cls_logits", "logits"), ("bbox_regression", "codes"))
    }
    anchors = [list(torchvision_anchors(size)[0].split(counts))]
    (found,) = model.postprocess_detections(parts, anchors, [size])
    return {key: found[key].numpy() for key in ("boxes", "scores", "labels")}


def efficientdet(name: str, raw: dict[str, Any], threshold: float) -> dict[str, np.ndarray]:
    """The best 100 boxes after effdet's own NMS, less those below the threshold; not clipped."""
    import torch

    side = EFFICIENTDETS[name]
    boxes = effdet_anchors(f"tf_{name}", (side, side))
    from effdet.bench import _batch_detection, _post_process

    maps: dict[str, list[Any]] = {}
    for kind, columns in (("logits", 90), ("codes", 4)):
        if kind in raw:  # joined: back into maps
            grids = grids_of((side, side))
            levels = np.split(raw[kind], np.cumsum([9 * h * w for h, w in grids])[:-1], axis=1)
            shaped = [
                level.reshape(1, *grid, 9 * columns)
                for level, grid in zip(levels, grids, strict=True)
            ]
            maps[kind] = [torch.from_numpy(np.moveaxis(level, 3, 1).copy()) for level in shaped]
        else:
            maps[kind] = [torch.from_numpy(raw[f"{kind}{level}"]) for level in LEVELS]
    scores, codes, indices, classes = _post_process(maps["logits"], maps["codes"], 5, 90)
    found = _batch_detection(1, scores, codes, boxes, indices, classes)[0].numpy()
    found = found[found[:, 4] > threshold]
    # Its class ids count a background.
    return {"boxes": found[:, :4], "scores": found[:, 4], "labels": found[:, 5].astype(int) - 1}


def yolov5(raw: dict[str, Any], threshold: float) -> dict[str, np.ndarray]:
    """Every box of YOLOv5's above the threshold, none suppressed; not clipped."""
    import torch

    part, _, names = yolov5_model("yolov5_maps")
    from yolov5.utils.general import non_max_suppression

    if "boxes" in raw:
        rows = torch.from_numpy(raw["boxes"])
    else:
        last = part.inner.model[-1]
        # Of its last layer, what comes after the convolutions.
        last.m = torch.nn.ModuleList(torch.nn.Identity() for _ in names)
        maps = [
            np.moveaxis(raw[name], 4, 2).reshape(1, -1, *raw[name].shape[2:4]) for name in names
        ]
        rows, _ = last([torch.from_numpy(m.copy()) for m in maps])
    limits = {"conf_thres": threshold, "iou_thres": 1.0, "multi_label": True, "max_det": 10**5}
    found = non_max_suppression(rows, **limits)[0].numpy()
    return {"boxes": found[:, :4], "scores": found[:, 4], "labels": found[:, 5].astype(int)}


def ultralytics(name: str, raw: dict[str, Any], threshold: float) -> dict[str, np.ndarray]:
    """Rows above the threshold, none suppressed, of its own NMS: box, score, class, the rest."""
    import torch

    declare_operators()
    from ultralytics.utils.nms import non_max_suppression

    found = non_max_suppression(
        torch.from_numpy(raw["output0"]),
        conf_thres=threshold,
        iou_thres=1.0,
        max_det=10**5,
        nc=80,
        rotated=name.endswith("obb"),
        end2end=name == "yolo26n",
    )
    return {"rows": found[0].numpy()}


def decoded(name: str, raw: dict[str, Any], threshold: float) -> dict[str, np.ndarray]:
    """What the library of a model makes of its raw outputs."""
    if name in ULTRALYTICS:
        return ultralytics(name, raw, threshold)
    if name.startswith("yolov5"):
        return yolov5(raw, threshold)
    return retinanet(raw, threshold) if name == "retinanet" else efficientdet(name, raw, threshold)


def main(name: str, *rest: str) -> None:
    """Write the anchors, or what a library makes of raw outputs."""
    if name == "anchors":
        np.savez(rest[0], **all_anchors())
        return
    np.savez(rest[1], **decoded(name, dict(np.load(rest[0])), float(rest[2])))


if __name__ == "__main__":
    main(*sys.argv[1:])
