"""Models exported by torchvision, Keras and Model API are recognised and built for RTX.

Optional: see ``exports.py``. Weights are random: what is checked is the graph.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from exports import MARKS

from trtconvert.cli.app import run
from trtconvert.load import load_model
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.engine_file import EngineFile

pytestmark = MARKS

BUILT = {
    "resnet18": ("classify", "classifier", ["--preprocess", "imagenet"]),
    "deeplabv3": ("segment", "logits", ["--preprocess", "imagenet,size=256"]),
    "ssdlite": ("detect", "boxes_scores", ["--preprocess", "none,std=255", "--nms", "outside"]),
    "keras_mobilenet_v2": ("classify", "classifier", ["--preprocess", "tf,size=96"]),
}
TWO_STAGES = {
    "faster_rcnn": ("detect", "nms_inside"),
    "mask_rcnn": ("instances", "mask_rcnn"),
}


@pytest.mark.parametrize("name", BUILT)
def test_recognised_and_built(name, exported, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    task, head, flags = BUILT[name]
    path, engine = str(exported(name)), tmp_path / f"{name}.engine"
    targets = ["--target", "rtx:sm86", "--target", "cpu"]
    assert run(["build", path, "-o", str(engine), "--precision", "fp16", *targets, *flags]) == 0
    with EngineFile(engine) as file:
        assert (file.manifest.recipe.task, file.manifest.recipe.head) == (task, head)
        assert [plan.target for plan in file.manifest.plans] == ["rtx:sm86"]


@pytest.mark.parametrize("name", TWO_STAGES)
def test_recognised_and_check_says_what_stops_it(name, exported, tmp_path, capsys):
    task, head = TWO_STAGES[name]
    path = str(exported(name))
    assert run(["guess", path, "--preprocess", "none", "--json"]) == 0
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert (recipe["task"], recipe["head"]) == (task, head)
    assert run(["check", path, "--target", "rtx:sm86", "--target", "cpu", "--json"]) == 3
    rtx, cpu = json.loads(capsys.readouterr().out)["targets"]
    assert cpu["builds"]
    stopping = {problem["node"].split()[0] for problem in rtx["problems"]}
    assert stopping == {"NonZero", "NonMaxSuppression", "RoiAlign"}
    assert all("--target cpu" in problem["fix"] for problem in rtx["problems"])
    assert run(["guess", path, "--preprocess", "none", "--nms", "outside"]) == 3
    assert "two-stage" in capsys.readouterr().err
    build = ["build", path, "-o", str(tmp_path / "x.engine"), "--preprocess", "none,std=255"]
    assert run([*build, "--precision", "fp32", "--target", "cpu", "--json"]) == 0
    # The same graph, cleaned: the same boxes, whose number the data decides.
    found = json.loads(capsys.readouterr().out)
    assert found["verification"]["agreement"] > 0.999


def test_what_is_left_before_the_nms_is_what_the_nms_chose_from(exported):
    path = exported("ssdlite")
    from trtconvert.edits import GraphEdits

    whole, left = load_model(path).model, load_model(path, GraphEdits(nms="outside"))
    image = {"image": np.random.default_rng(0).random((1, 3, 320, 320), np.float32)}
    backend = OnnxRuntimeBackend(left.model.SerializeToString())
    outputs = backend.run(image)
    backend.close()
    backend = OnnxRuntimeBackend(whole.SerializeToString())
    chosen = backend.run(image)
    backend.close()
    options = left.told["head_options"]
    boxes, scores = outputs[options["boxes"]][0], outputs[options["scores"]][0]
    assert len(chosen["boxes"]) > 0
    for box, score, label in zip(chosen["boxes"], chosen["scores"], chosen["labels"], strict=True):
        candidates = np.flatnonzero(np.abs(scores[:, label] - score) < 1e-6)
        assert np.abs(boxes[candidates] - box).max(axis=1).min() < 1e-3


def test_model_api_says_what_it_saved_but_not_how_it_is_fed(exported, capsys):
    path = str(exported("model_api"))
    # It says that the graph prepares images by itself, which reads floats as before.
    assert run(["guess", path]) == 2
    assert "--preprocess" in capsys.readouterr().err
    assert run(["guess", path, "--preprocess", "imagenet,mean=127,std=128", "--json"]) == 0
    recipe = json.loads(capsys.readouterr().out)["recipe"]
    assert (recipe["task"], recipe["head"]) == ("classify", "classifier")
    assert recipe["labels"][:2] == ["class 0", "class 1"]
