"""What ``trtconvert build`` prints, writes and exits with; a tiny model, for the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli_runs import JSON_KEYS, RECIPE, build
from onnx import TensorProto, numpy_helper
from tiny_models import CLASSES, save, tiny_classifier

from trtconvert.cli.app import run
from visionrt.engine_file import EngineFile

# build


def test_build_json(tiny, capsys):
    assert build(tiny, "--precision", "fp16", "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert list(found) == JSON_KEYS
    assert found["precision"] == "fp16"
    assert found["calibration"] is None
    (target,) = found["targets"]
    assert list(target) == ["backend", "target", "plan_bytes", "build_seconds"]
    assert target["plan_bytes"] > 0
    assert found["verification"]["metric"] == "top1"
    assert found["verification"]["images"] == 4
    assert found["verification"]["agreement"] == 1
    assert sum(found["nodes_by_precision"].values()) == found["nodes_by_precision"]["fp16"]
    with EngineFile(tiny / "tiny.engine") as file:
        assert json.loads(file.read("report.json")) == found
        assert file.manifest.precision == "fp16"
        assert file.manifest.source["file"] == "tiny.onnx"


def test_build_int8_json(tiny, capsys):
    more = ["--precision", "int8", "--calib", tiny / "pictures", "--calib-images", "3", "--json"]
    assert build(tiny, *more, "--calib-method", "minmax") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["calibration"]) == ["images", "seconds", "method", "peak_rss_bytes"]
    assert found["calibration"]["images"] == 3
    assert found["calibration"]["method"] == "minmax"
    assert found["nodes_by_precision"]["int8"] >= 1
    assert 0 <= found["verification"].get("twin_agreement", 1) <= 1
    with EngineFile(tiny / "tiny.engine") as file:
        # int8 only where it was not slower just now.
        is_slower = any("CPU twin is float32" in warning for warning in found["warnings"])
        assert file.manifest.twin_precision == ("fp32" if is_slower else "int8")


def test_calibrated_ranges_can_be_reused_without_images(tiny, capsys):
    assert build(tiny, "-q", "--int8", "--calib", tiny / "pictures") == 0
    ranges = str(tiny / "ranges.json")
    assert run(["extract", str(tiny / "tiny.engine"), "--ranges", "-o", ranges]) == 0
    assert build(tiny, "--int8", "--ranges", ranges, "--json", output="again.engine") == 0
    assert json.loads(capsys.readouterr().out)["calibration"] is None
    with EngineFile(tiny / "again.engine") as file:
        assert file.manifest.precision == "int8"


def test_limit_for_another_metric_is_refused_at_once(tiny, capsys):
    assert build(tiny, "--max-drop", "map=1%") == 2
    assert "top1" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_float16_model_keeps_its_interface(tiny, precision, capsys):
    model = tiny_classifier()
    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    save(model, tiny / "tiny.onnx")
    more = ["--calib", str(tiny / "pictures")] if precision == "int8" else []
    assert build(tiny, "--precision", precision, *more, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verification"]["cosine"] > 0.999
    assert found["nodes_by_precision"][precision] > 0
    with EngineFile(tiny / "tiny.engine") as file:
        assert [t.dtype for t in file.manifest.inputs] == ["float16"]
        assert [t.dtype for t in file.manifest.outputs] == ["float16"]
        assert file.manifest.recipe.preprocess.dtype == "float16"


def test_command_may_be_left_out_and_the_table_is_quiet_on_request(tiny, capsys):
    arguments = [str(tiny / "tiny.onnx"), "-o", str(tiny / "a.engine"), *RECIPE, "--target", "cpu"]
    arguments += ["--images", str(tiny / "pictures")]
    assert run(arguments) == 0
    captured = capsys.readouterr()
    assert "a.engine: fp16" in captured.out
    assert "agreement" in captured.out
    assert "\x1b" not in captured.out + captured.err
    assert run([*arguments, "-q"]) == 0
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert run([*arguments, "-v"]) == 0
    assert "--preprocess" in capsys.readouterr().out


def test_builds_are_reproducible(tiny):
    assert build(tiny, "-q", "--precision", "fp16", output="a.engine") == 0
    assert build(tiny, "-q", "--precision", "fp16", output="b.engine") == 0
    with EngineFile(tiny / "a.engine") as a, EngineFile(tiny / "b.engine") as b:
        for member in ("model.onnx", "typed.onnx"):
            assert a.read(member) == b.read(member)


def test_without_images_verification_says_so(tiny, capsys):
    arguments = ["build", str(tiny / "tiny.onnx"), "-o", str(tiny / "x.engine"), *RECIPE]
    assert run([*arguments, "--target", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verification"]["images"] == 0
    assert any("synthetic" in warning for warning in found["warnings"])


def test_verifying_on_calibration_images_is_said(tiny, capsys):
    arguments = ["build", str(tiny / "tiny.onnx"), "-o", str(tiny / "x.engine"), *RECIPE, "--int8"]
    arguments += ["--calib", str(tiny / "pictures"), "--target", "cpu", "--json"]
    assert run(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert any("calibration images" in warning for warning in found["warnings"])


@pytest.mark.usefixtures("busy_machine")
def test_a_twin_timed_on_a_busy_machine_is_doubted_in_the_report(tmp_path, models, capsys):
    arguments = ["build", str(models / "selfie_segmentation.onnx"), "--precision", "fp32"]
    arguments += ["-o", str(tmp_path / "a.engine"), "--preprocess", "none,size=256x256"]
    arguments += ["--task", "segment", "--target", "cpu", "--json"]
    assert run(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    (doubt,) = [w for w in found["warnings"] if "timed badly" in w]
    assert "only " in doubt
    assert "repeat it on a quiet machine: visionrt tune ENGINE" in doubt
    with EngineFile(tmp_path / "a.engine") as file:
        assert file.manifest.cpu.doubt
        assert file.manifest.cpu.doubt in doubt


def loud(tiny):
    """A model with activations beyond float16's largest number."""
    model = tiny_classifier()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    values = numpy_helper.to_array(weight) * np.float32(3e4)
    weight.CopyFrom(numpy_helper.from_array(values, "w"))
    save(model, tiny / "tiny.onnx")


def test_what_overflows_is_raised_and_named(tiny, capsys):
    loud(tiny)
    arguments = ["build", tiny / "tiny.onnx", "-o", tiny / "tiny.engine", *RECIPE]
    arguments += ["--target", "cpu", "--precision", "fp16", "--max-drop", "1%"]
    assert run([str(argument) for argument in arguments]) == 0
    shown = capsys.readouterr().out
    assert "nodes raised" in shown
    assert "fp16 → fp32" in shown
    assert "overflows" in shown
    # Images show the overflow beforehand, and leave nothing to search.
    assert build(tiny, "--precision", "fp16", "--max-drop", "1%", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["search"]["raised"] == []
    assert found["search"]["evaluations"] == 1
    assert found["verification"]["agreement"] == 1
    assert found["nodes_by_precision"]["fp32"] > 0


def test_max_drop_that_does_not_hold_exits_4_and_writes_nothing(tiny, capsys, monkeypatch):
    def break_weights(model, _warnings):
        head = next(tensor for tensor in model.graph.initializer if tensor.name == "fc")
        head.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(head), "fc"))
        return model

    monkeypatch.setattr("trtconvert.clean.slim", break_weights)
    for precision in ("fp32", "fp16", "auto"):
        assert build(tiny, "--precision", precision, "--max-drop", "1%") == 4
        assert "agreement" in capsys.readouterr().err
        assert not (tiny / "tiny.engine").exists()


def test_outputs_by_suffix(tiny):
    assert build(tiny, "-q", "--precision", "fp16", output="tiny_fp16.onnx") == 0
    data = (tiny / "tiny_fp16.onnx").read_bytes()
    assert build(tiny, "-q", "--target", "rtx:sm86", output="tiny.trt") == 2
    assert build(tiny, "-q", "--precision", "fp16") == 0
    with EngineFile(tiny / "tiny.engine") as file:
        assert file.read("typed.onnx") == data


def test_batch_keeps_the_twin_dynamic_and_shapes_fix_it(tiny):
    for more, expected in ((("--batch", "4"), "batch"), (("--shapes", "1x3x16x16"), 1)):
        assert build(tiny, "-q", *more) == 0
        with EngineFile(tiny / "tiny.engine") as file:
            assert file.manifest.inputs[0].shape == (expected, 3, 16, 16)
            assert file.manifest.outputs[0].shape == (expected, CLASSES)


def test_output_that_is_the_model_itself_is_refused(tiny, capsys):
    before = (tiny / "tiny.onnx").read_bytes()
    assert build(tiny, output="tiny.onnx") == 8
    assert "the model itself" in capsys.readouterr().err
    assert (tiny / "tiny.onnx").read_bytes() == before
