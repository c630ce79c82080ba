"""What the command line accepts, prints and exits with; builds use a tiny model for the CPU."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from tiny_models import CLASSES, save, save_pictures, tiny_classifier

from trtconvert.cli.app import cli, run
from trtconvert.cli.build import options_from
from visionrt.engine_file import EngineFile

ROOT = Path(__file__).parents[2]
RECIPE = ["--task", "classify", "--preprocess", "tf"]


@pytest.fixture
def tiny(tmp_path):
    """Model, pictures and output path in one folder."""
    save(tiny_classifier(), tmp_path / "tiny.onnx")
    save_pictures(tmp_path / "pictures")
    return tmp_path


def build(folder, *more, output="tiny.engine"):
    arguments = ["build", folder / "tiny.onnx", "-o", folder / output, *RECIPE]
    arguments += ["--target", "cpu", "--images", folder / "pictures", *more]
    return run([str(argument) for argument in arguments])


def parsed(*arguments):
    """The options that a command line of ``build`` means."""
    context = cli.commands["build"].make_context("build", list(arguments))
    return options_from({k: v for k, v in context.params.items() if k != "as_json"})


# help and mistakes


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)])
def test_help(command, capsys):
    assert run([*command, "--help"]) == 0
    assert "Usage: trtconvert" in capsys.readouterr().out


def test_no_arguments_show_the_help(capsys):
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("trtconvert")


def test_commands_are_those_that_work():
    want = {"build", "check", "inspect", "verify", "diff", "debug", "extract", "guess", "audit"}
    assert set(cli.commands) == want


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["inspekt"], "inspect"),
        (["biuld", "m.onnx"], "build"),
        (["build", "m.onnx", "-o", "x.engine", "--precison", "fp16"], "--precision"),
        (["build", "m.onnx", "--saveEngin=x.engine"], "--saveEngine"),
        (["m.onnx", "-o", "x.engine", "--calb", "d"], "--calib"),
        (["build", "m.onnx", "-o", "x.engine", "--precision", "fp61"], "fp16"),
        (["build", "m.onnx", "-o", "x.engine", "--target", "rtz"], "rtx"),
    ],
)
def test_near_misses_are_suggested(arguments, hint, capsys):
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert hint in captured.err
    assert not captured.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["build"],
        ["build", "-o", "x.engine"],
        ["build", "m.onnx"],
        ["build", "m.onnx", "--onnx", "n.onnx", "-o", "x.engine"],
        ["build", "m.onnx", "-o", "x.bin"],
        ["build", "m.onnx", "-o", "x.engine", "--int8"],
        ["build", "m.onnx", "-o", "x.engine", "--fp16", "--precision", "fp32"],
        ["build", "m.onnx", "-o", "x.engine", "--max-drop", "many"],
        ["build", "m.onnx", "-o", "x.engine", "--head-options", "[1]"],
        ["build", "m.onnx", "-o", "x.engine", "--head-options", "{"],
        ["build", "m.onnx", "-o", "x.engine", "--batch", "2", "--shapes", "1x3x8x8"],
        ["build", "m.onnx", "-o", "x.engine", "--shapes", "wide"],
        ["build", "m.onnx", "-o", "x.engine", "--calib-images", "4"],
        ["build", "m.onnx", "-o", "x.plan", "--target", "cpu"],
        ["build", "m.onnx", "-o", "x.plan", "--target", "rtx:sm86,sm89"],
        ["build", "m.onnx", "-o", "x.engine", "--target", "cpu", "--target", "cpu"],
        ["extract", "x.engine"],
        ["extract", "x.engine", "--onnx", "--report"],
        ["extract", "x.engine", "--onnx"],
        ["verify", "x.engine", "--images", "d"],
    ],
)
def test_usage_errors_exit_2_with_one_line(arguments, capsys):
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_errors_are_json_too(tmp_path, capsys):
    arguments = ["build", str(tmp_path / "no.onnx"), "-o", str(tmp_path / "x.engine"), "--json"]
    assert run([*arguments, "--target", "cpu"]) == 8
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["exit_code"] == 8
    assert captured.err == f"error: {found['error']}\n"
    assert run([*arguments, "--presision", "fp16"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


# spellings


def test_trtexec_spellings_mean_the_same():
    ours = parsed(
        "m.onnx", "-o", "x.engine", "--precision", "fp16",
        "--minShapes", "a:1x3x8x8", "--optShapes", "a:2x3x8x8", "--maxShapes", "a:4x3x8x8",
    )  # fmt: skip
    theirs = parsed(
        "--onnx=m.onnx", "--saveEngine=x.engine", "--fp16",
        "--minShapes=a:1x3x8x8", "--optShapes=a:2x3x8x8", "--maxShapes=a:4x3x8x8",
    )  # fmt: skip
    assert ours == theirs
    assert theirs.shapes.max == {"a": (4, 3, 8, 8)}


def test_precision_aliases():
    assert parsed("m.onnx", "-o", "x.engine").precision == "auto"
    assert parsed("m.onnx", "-o", "x.engine", "--int8", "--calib", "d").precision == "int8"
    both = parsed("m.onnx", "-o", "x.engine", "--int8", "--fp16", "--calib", "d")
    assert both.precision == "auto"
    assert parsed("m.onnx", "-o", "x.engine", "--fp16", "--precision", "fp16").precision == "fp16"


def test_shapes_flag_fixes_all_three():
    shapes = parsed("m.onnx", "-o", "x.engine", "--shapes", "a:1x3x8x8").shapes
    assert shapes.min == shapes.opt == shapes.max == {"a": (1, 3, 8, 8)}


# build


JSON_KEYS = [
    "engine", "precision", "targets", "nodes_by_precision", "flops_by_precision", "calibration",
    "verification", "search", "warnings",
]  # fmt: skip


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


def test_bars_are_drawn_on_a_terminal_only(tiny):
    arguments = [sys.executable, "-m", "trtconvert", str(tiny / "tiny.onnx"), *RECIPE]
    arguments += ["-o", str(tiny / "x.engine"), "--target", "cpu", "--images"]
    arguments += [str(tiny / "pictures"), "--json"]
    ours, theirs = pty.openpty()
    child = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    drawn = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "Verifying" in drawn
    # What is drawn on stderr never gets into the JSON on stdout.
    assert json.loads(child.stdout)["precision"] == "fp16"
    quiet = subprocess.run(arguments, capture_output=True, timeout=60, check=True)
    assert quiet.stderr == b""


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


# as a program


def program(*arguments):
    command = [sys.executable, "-m", "trtconvert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_as_a_program(tiny):
    done = program("inspect", tiny / "tiny.onnx")
    assert done.returncode == 0
    assert done.stderr == ""
    done = program("inspect", tiny / "nothing.onnx")
    assert done.returncode == 8
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_reader_that_goes_away_is_no_error(tiny):
    command = f"{sys.executable} -m trtconvert inspect {tiny / 'tiny.onnx'} | true; "
    command += "echo ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"
    assert done.stderr == ""


def test_missing_extra_is_one_line_with_the_cure(tmp_path):
    # A package that hides the real one and is broken in the way an absent one is.
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'rich'\", name='rich')\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    code += "from trtconvert.cli.main import main; main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 6
    assert 'pip install "trtconvert[convert]"' in done.stderr
    assert done.stderr.count("\n") == 1
