"""Calibration of a model against running it on the same photos."""

from __future__ import annotations

from pathlib import Path

import onnx

from harness import OURS, Case
from trtconvert.calibration.collect import Collector
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.ranges import threshold
from trtconvert.calibration.reader import ImageReader
from trtconvert.clean import clean_model
from trtconvert.graph_view import GraphView, lift_constants
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import raise_opset
from trtconvert.progress import silent
from trtconvert.targets.base import ShapeRange
from trtconvert.weights import WeightFile
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.spec import PreprocessSpec

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"


def calibration_case() -> Case:
    """The ranges of every int8 tensor of efficientnet_lite0, from 120 photos; all cores.

    Both sides read and decode the photos, and load the model.
    """
    path = DATA / "models" / "efficientnet_lite0.onnx"
    options = CalibrationOptions(DATA / "images" / "calib")
    reader = ImageReader(options.images, PreprocessSpec.parse("imagenet,mean=127,std=128"))
    model = onnx.load(path)
    (name,) = (value.name for value in model.graph.input)
    sizes = {name: ShapeRange.fixed((1, 3, 224, 224))}

    def calibrate() -> dict[str, float]:
        clean = clean_model(model, sizes, keep_batch=False)
        weights = WeightFile()
        graph = raise_opset(weights.aside(lift_constants(clean)))
        view = GraphView(graph, weights=weights)
        collector = Collector(view, place_int8(view).activations)
        collector.add(reader, silent)
        return {tensor: threshold(found, options) for tensor, found in collector.plain.items()}

    def run() -> None:
        backend = OnnxRuntimeBackend(path)
        for tensor in reader:
            backend.run({name: tensor})

    return Case(
        f"int8 calibration of {path.stem}, {len(reader)} photos",
        {OURS: calibrate, "the FP32 model on them": run},
        rounds=3,
        warm_up=1,
        targets={"the FP32 model on them": 1 / 2.5},
    )


def cases() -> list[Case]:
    """Every case of this stage."""
    return [calibration_case()]
