"""The other commands of ``trtconvert``, on a tiny model."""

from __future__ import annotations

import json

import pytest
from cli_runs import JSON_KEYS, RECIPE, build
from graphs import graph_of, make, value
from onnx import TensorProto
from tiny_models import save, tiny_classifier

from trtconvert.cli.app import run
from visionrt.engine_file import EngineFile

# the other commands


def test_inspect_model_engine_and_plan(tiny, capsys):
    assert build(tiny, "-q", "--precision", "fp16") == 0
    for name, kind in (("tiny.onnx", "model"), ("tiny.engine", "engine")):
        assert run(["inspect", str(tiny / name), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["kind"] == kind
        assert found["inputs"][0]["name"] == "image"
        assert found["outputs"][0]["name"] == "scores"
        assert run(["inspect", str(tiny / name)]) == 0
        assert "image" in capsys.readouterr().out
    assert found["operators"]["model.onnx"]["Conv"] == 1
    assert len(found["members"]["model.onnx"]["sha256"]) == 64
    (tiny / "x.plan").write_bytes(b"\0" * 80)
    assert run(["inspect", str(tiny / "x.plan"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "plan"
    assert run(["inspect", str(tiny / "absent.engine")]) == 7
    assert run(["inspect", str(tiny / "absent.onnx")]) == 8
    assert run(["inspect", str(tiny / "absent.plan")]) == 8


def test_extract(tiny, capsys):
    assert build(tiny, "-q", "--precision", "fp16") == 0
    engine = str(tiny / "tiny.engine")
    for flag, member in (("--onnx", "model.onnx"), ("--typed", "typed.onnx")):
        assert run(["extract", engine, flag, "-o", str(tiny / "out.onnx")]) == 0
        with EngineFile(engine) as file:
            assert (tiny / "out.onnx").read_bytes() == file.read(member)
    assert run(["extract", engine, "--manifest"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "visionrt-engine"
    assert run(["extract", engine, "--report"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == JSON_KEYS
    assert run(["extract", engine, "--plan", "rtx:sm86", "-o", str(tiny / "x.plan")]) == 2
    assert "there are none" in capsys.readouterr().err


def test_verify_engine(tiny, capsys):
    assert build(tiny, "-q", "--precision", "fp16") == 0
    arguments = ["verify", str(tiny / "tiny.engine"), "--images", str(tiny / "pictures"), "--json"]
    assert run([*arguments, "--reference", str(tiny / "tiny.onnx"), "--max-drop", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["typed"]["agreement"] == found["twin"]["agreement"] == 1
    assert found["warnings"] == []
    other = save(tiny_classifier(seed=5), tiny / "other.onnx")
    assert run([*arguments, "--reference", str(other)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "not the file" in found["warnings"][0]
    assert found["typed"]["cosine"] < 0.9
    assert run([*arguments, "--reference", str(other), "--max-drop", "top1=0%"]) == 4


def test_guess_prints_a_reason_per_field(tiny, capsys):
    assert run(["guess", str(tiny / "tiny.onnx"), *RECIPE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipe"]["head"] == "classifier"
    assert found["reasons"]["preprocess"] == "--preprocess"
    assert run(["guess", str(tiny / "tiny.onnx"), *RECIPE]) == 0
    assert "--task" in capsys.readouterr().out


def test_check(tiny, capsys):
    pytest.importorskip("tensorrt_rtx")
    assert run(["check", str(tiny / "tiny.onnx"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    verdicts = {target["target"]: target["builds"] for target in found["targets"]}
    assert verdicts["cpu"]
    assert verdicts["rtx:sm86"]


def test_check_names_node_reason_and_cure(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx")
    model = tiny_classifier(tail="Det")
    # Det takes matrices: give it the pooled map's two unit axes.
    model.graph.node[4].input[0] = "pool"
    model.graph.node[5].op_type = "Identity"
    del model.graph.node[5].attribute[:]
    del model.graph.node[5].input[1]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    save(model, tmp_path / "det.onnx")
    assert run(["check", str(tmp_path / "det.onnx"), "--target", "rtx:sm86", "--json"]) == 3
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert not target["builds"]
    assert "Det 'tail'" in target["problems"][0]["node"]
    assert target["problems"][0]["fix"]
    assert run(["check", str(tmp_path / "det.onnx"), "--target", "cpu"]) == 0


def notes_of(path, capsys, *more):
    run(["check", str(path), "--target", "cpu", "--json", *more])
    found = json.loads(capsys.readouterr().out)
    return {note["topic"]: note["text"] for note in found["notes"]}


def test_check_says_what_to_know(tiny, capsys):
    notes = notes_of(tiny / "tiny.onnx", capsys)
    assert "dynamic: 0 (n)" in notes["axes"]
    assert notes["input"] == "NCHW float32, 3 channels"
    assert "nothing in the graph stops" in notes["CUDA graph"]
    assert "no operator or constant beyond its range" in notes["FP16"]
    save(tiny_classifier(tail="Exp", batch=1), tiny / "exp.onnx")
    notes = notes_of(tiny / "exp.onnx", capsys)
    assert "all static" in notes["axes"]
    assert "Exp tail: exp(x) overflows above x = 11" in notes["FP16"]


def test_check_on_sizes_that_depend_on_the_data(tmp_path, capsys):
    image = value("image", [1, 3, 8, 8])
    nodes = [make("NonZero", ["image"], ["where"])]
    model = graph_of(nodes, inputs=[image], outputs=[value("where", [4, "k"], TensorProto.INT64)])
    notes = notes_of(save(model, tmp_path / "where.onnx"), capsys)
    assert "1 NonZero" in notes["data-dependent sizes"]
    assert "where" in notes["data-dependent sizes"]
    assert "NonZero stop the capture" in notes["CUDA graph"]
