"""A graph exported for one image takes batches where that changes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from graphs import graph_of, make, run, stored, value
from onnx import ModelProto
from tiny_models import save, save_pictures, tiny_classifier

from trtconvert.cli.app import run as trtconvert
from trtconvert.graph import shape_of
from trtconvert.passes.free_batch import with_free_batch
from visionrt.engine_file import EngineFile


def pooled(*nodes, last="r", out=(1, 3), **constants) -> ModelProto:
    weights = [stored(name, np.array(array)) for name, array in constants.items()]
    pool = make("GlobalAveragePool", ["x"], ["p"])
    end = make("Relu", [last], ["y"])
    return graph_of(
        [pool, *nodes, end], weights,
        inputs=[value("x", [1, 3, 8, 8])], outputs=[value("y", out)],
    )  # fmt: skip


def test_a_flattening_reshape_keeps_the_batch():
    model = pooled(make("Reshape", ["p", "to"], ["r"]), to=[1, 3])
    freed = with_free_batch(model)
    assert shape_of(freed.graph.input[0]) == ("batch", 3, 8, 8)
    assert shape_of(freed.graph.output[0]) == ("batch", 3)
    images = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype(np.float32)
    alone = [run(model, {"x": image[None]})[0] for image in images]
    np.testing.assert_array_equal(run(freed, {"x": images})[0], np.concatenate(alone))


@pytest.mark.parametrize(
    "model",
    [
        # The batch is mixed into another axis, or is summed over.
        pooled(make("Reshape", ["p", "to"], ["r"]), to=[3, 1], out=(3, 1)),
        pooled(make("Softmax", ["p"], ["r"], axis=0), out=(1, 3, 1, 1)),
        graph_of([make("Relu", ["x"], ["y"])], inputs=[value("x", [1, 3, "h", 8])],
                 outputs=[value("y", [1, 3, "h", 8])]),
        graph_of([make("Relu", ["x"], ["y"])], inputs=[value("x", [2, 3, 8, 8])],
                 outputs=[value("y", [2, 3, 8, 8])]),
    ],
)  # fmt: skip
def test_it_stays_where_it_would_change_results(model):
    assert with_free_batch(model) is model


def test_build_for_a_batch(tmp_path, capsys):
    path = save(tiny_classifier(batch=1), tmp_path / "one.onnx")
    engine = tmp_path / "one.engine"
    build = ["build", str(path), "-o", str(engine), "--preprocess", "tf", "--task", "classify"]
    build += ["--precision", "fp32", "--target", "cpu", "-q"]
    assert trtconvert([*build, "--batch", "3"]) == 0
    with EngineFile(engine) as file:
        (info,) = file.manifest.inputs
    assert info.shape == ("batch", 3, 16, 16)
    photos = str(save_pictures(tmp_path / "pictures"))
    verify = ["verify", str(engine), "--reference", str(path), "--images", photos, "--json"]
    assert trtconvert(verify) == 0
    assert json.loads(capsys.readouterr().out)["twin"]["agreement"] == 1
