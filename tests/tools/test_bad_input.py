"""Bad input, full disks, killed builds: the right exit code, one line, nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper
from tiny_models import save, save_pictures, tiny_classifier

from trtconvert.cli.app import run
from visionrt.engine_file import EngineFile
from visionrt.errors import EngineFileError

MODELS = Path(__file__).parents[1] / "data" / "models"
IMAGES = Path(__file__).parents[1] / "data" / "images"
RECIPE = ["--task", "classify", "--preprocess", "tf"]


@pytest.fixture
def tiny(tmp_path):
    save(tiny_classifier(), tmp_path / "tiny.onnx")
    save_pictures(tmp_path / "pictures")
    (tmp_path / "out").mkdir()
    return tmp_path


def build_arguments(folder, *more):
    arguments = [folder / "tiny.onnx", "-o", folder / "out" / "x.engine", *RECIPE]
    return [str(a) for a in [*arguments, "--target", "cpu", "--images", folder / "pictures", *more]]


@pytest.fixture
def refused(tiny, capsys):
    """Runs a build that must fail with an exit code, one line, and an empty output folder."""

    def check(exit_code, *more, arguments=None):
        assert run(arguments or build_arguments(tiny, *more)) == exit_code
        captured = capsys.readouterr()
        assert captured.err.startswith("error: expected ")
        assert captured.err.count("\n") == 1
        assert "Traceback" not in captured.err
        assert list((tiny / "out").iterdir()) == []
        return captured.err

    return check


# the model


def test_truncated_model(tiny, refused):
    data = (tiny / "tiny.onnx").read_bytes()
    (tiny / "tiny.onnx").write_bytes(data[: len(data) // 2])
    assert "truncated" in refused(3)


def test_missing_model(tiny, refused):
    (tiny / "tiny.onnx").unlink()
    assert "No such file" in refused(8)


def test_cycle(tiny, refused):
    model = tiny_classifier()
    model.graph.node[1].input[0] = "last"
    save(model, tiny / "tiny.onnx")
    assert "cycle" in refused(3)


def test_missing_initializer(tiny, refused):
    model = tiny_classifier()
    del model.graph.initializer[0]
    save(model, tiny / "tiny.onnx")
    assert "'w', which Conv 'conv' reads" in refused(3)


def test_external_data_outside_its_folder(tiny, refused):
    model = tiny_classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    tensor.external_data.add(key="location", value="../../etc/passwd")
    save(model, tiny / "tiny.onnx")
    assert "inside the model's folder" in refused(3)


def test_model_that_loads_but_does_not_run(tiny, refused):
    model = tiny_classifier()
    # Eight filters of five channels, on an image of three: shape inference does not mind.
    wrong = numpy_helper.from_array(np.zeros((8, 5, 3, 3), np.float32), "w")
    next(tensor for tensor in model.graph.initializer if tensor.name == "w").CopyFrom(wrong)
    save(model, tiny / "tiny.onnx")
    assert "Conv" in refused(3, "--int8", "--calib", str(tiny / "pictures"))


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        ('{"offset": 7}', 2, "offset"),
        ('{"output": "scorez"}', 2, "scores"),
        ('{"sigma": 1}', 2, "sigma"),
    ],
)
def test_head_options_are_checked_before_calibration(tiny, refused, options, exit_code, words):
    # Calibration would fail with another exit code: the pictures are broken.
    (tiny / "bad").mkdir()
    (tiny / "bad" / "a.png").write_bytes(b"no picture")
    more = ["--int8", "--calib", str(tiny / "bad"), "--head-options", options]
    assert words in refused(exit_code, *more)


def test_ssd_without_anchors_is_refused_before_calibration(tiny, refused):
    model = tiny_classifier()
    save(model, tiny / "tiny.onnx")
    more = ["--task", "detect", "--head", "ssd", "--head-options"]
    more += ['{"boxes": "scores", "scores": "scores"}']
    assert "anchors" in refused(2, *more)


def test_unknown_operator(tiny, refused):
    save(tiny_classifier(tail="Frobnicate"), tiny / "tiny.onnx")
    assert "Frobnicate 'tail': no such operator" in refused(3)


def test_operator_the_target_cannot_build_is_named_before_the_long_work(tiny, refused):
    pytest.importorskip("tensorrt_rtx")
    model = tiny_classifier(tail="NonZero")
    model.graph.node[5].op_type = "Cast"
    del model.graph.node[5].input[1]
    del model.graph.node[5].attribute[:]
    model.graph.node[5].attribute.add(name="to", type=2, i=1)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "a"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "b"
    save(model, tiny / "tiny.onnx")
    assert "NonZero 'tail'" in refused(3, "--target", "rtx:sm86")


# images


def test_wrong_number_of_images(tiny, refused):
    error = refused(8, "--int8", "--calib", str(tiny / "pictures"), "--calib-images", "5")
    assert "expected 5 images, got 4" in error


def test_empty_calibration_folder(tiny, refused):
    (tiny / "empty").mkdir()
    assert "images in" in refused(8, "--int8", "--calib", str(tiny / "empty"))
    assert "no such folder" in refused(8, "--int8", "--calib", str(tiny / "absent"))


def test_images_that_are_none(tiny, refused):
    for path in (tiny / "pictures").iterdir():
        path.write_bytes(b"not a picture")
    assert "image" in refused(8)


def test_one_broken_image_is_skipped_and_named(tiny, capsys):
    (tiny / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run([*build_arguments(tiny), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verification"]["images"] == 4
    assert sum("broken.png" in warning for warning in found["warnings"]) == 1


# the output


def test_output_folder_missing_or_a_folder(tiny, refused):
    arguments = build_arguments(tiny)
    arguments[2] = str(tiny / "absent" / "x.engine")
    assert "mkdir" in refused(8, arguments=arguments)
    (tiny / "dir.engine").mkdir()
    arguments[2] = str(tiny / "dir.engine")
    assert "folder of that name" in refused(8, arguments=arguments)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_output_folder_read_only(tiny, refused):
    (tiny / "out").chmod(0o555)
    assert "read-only" in refused(8)


def test_too_little_room_is_found_before_the_long_work(tiny, refused, monkeypatch):
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))
    assert "free space" in refused(8)


def start(arguments, **options):
    command = [sys.executable, "-m", "trtconvert", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize(
    ("limit", "said"),
    [(5000, "to write"), (300, "room for temporary files")],
    ids=["the output", "a temporary file"],
)
def test_disk_that_fills_while_writing_leaves_the_old_file(tiny, limit, said):
    (tiny / "out" / "x.engine").write_bytes(b"the old file")
    child = start(
        build_arguments(tiny),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    _, error = child.communicate(timeout=120)
    assert child.returncode == 8
    assert error.startswith(f"error: expected {said}")
    assert error.count("\n") == 1
    assert [p.name for p in (tiny / "out").iterdir()] == ["x.engine"]
    assert (tiny / "out" / "x.engine").read_bytes() == b"the old file"


@pytest.fixture
def long_build(tmp_path):
    """A build that calibrates for long enough to be stopped half-way; yields it and its folder."""
    out = tmp_path / "out"
    out.mkdir()
    arguments = [MODELS / "mobilenet_v2.onnx", "-o", out / "x.engine", "--preprocess", "imagenet"]
    arguments += ["--int8", "--calib", IMAGES / "calib", "--target", "cpu"]
    child = start([str(a) for a in arguments])
    yield child, out
    if child.poll() is None:
        child.kill()
    child.communicate()


@pytest.mark.parametrize(
    ("number", "exit_code", "lines"),
    [(signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 0), (signal.SIGKILL, -9, 0)],
)
def test_stopped_build_leaves_nothing(long_build, number, exit_code, lines):
    child, out = long_build
    maps = Path(f"/proc/{child.pid}/maps")
    deadline = time.monotonic() + 60
    while "onnxruntime" not in maps.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.5)
    assert child.poll() is None, child.stderr.read()
    child.send_signal(number)
    _, error = child.communicate(timeout=60)
    assert child.returncode == exit_code
    assert error.count("\n") == lines
    assert "Traceback" not in error
    assert list(out.iterdir()) == []


def test_interrupt_while_writing_leaves_nothing(tiny, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupt)
    assert run(build_arguments(tiny)) == 130
    assert capsys.readouterr().err == "error: interrupted\n"
    assert list((tiny / "out").iterdir()) == []


# engine files


@pytest.fixture
def engine(tiny):
    assert run([*build_arguments(tiny), "-q", "--precision", "fp16"]) == 0
    return tiny / "out" / "x.engine"


def contents(path):
    with EngineFile(path) as file:
        members = {name: file.read(name) for name in file.manifest.members}
        return file.manifest.to_json(), members


def test_flipped_byte_anywhere_is_found_or_harmless(engine, tmp_path):
    original = contents(engine)
    data = engine.read_bytes()
    path = tmp_path / "flipped.engine"
    found = 0
    positions = range(0, len(data), max(1, len(data) // 400))
    for position in positions:
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        try:
            read = contents(path)
        except EngineFileError:
            found += 1
        else:
            # Bytes that carry nothing, like a time stamp: what was read is what was written.
            assert read == original, position
    assert found > 0.9 * len(positions)


@pytest.mark.parametrize("command", ["inspect", "extract", "verify"])
def test_damaged_engine_exits_7(command, engine, tmp_path, capsys):
    data = bytearray(engine.read_bytes())
    with zipfile.ZipFile(engine) as archive:
        info = archive.getinfo("typed.onnx")
    data[info.header_offset + 200] ^= 1
    (tmp_path / "bad.engine").write_bytes(data)
    arguments = {
        "inspect": [],
        "extract": ["--typed", "-o", str(tmp_path / "o.onnx")],
        "verify": ["--reference", str(engine.parents[1] / "tiny.onnx"),
                   "--images", str(engine.parents[1] / "pictures")],
    }  # fmt: skip
    assert run([command, str(tmp_path / "bad.engine"), *arguments[command]]) == 7
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "o.onnx").exists()


def rewritten(engine, target, change):
    """A copy of an engine file with its members and manifest changed."""
    with zipfile.ZipFile(engine) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members.pop("manifest.json"))
    change(manifest, members)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, data in members.items():
            archive.writestr(name, data)
    return str(target)


def test_member_that_leaves_the_folder(engine, tmp_path, capsys):
    def escape(manifest, members):
        members["../escaped.onnx"] = members.pop("model.onnx")
        manifest["members"]["../escaped.onnx"] = manifest["members"].pop("model.onnx")
        manifest["twin"] = "../escaped.onnx"

    path = rewritten(engine, tmp_path / "bad.engine", escape)
    assert run(["extract", path, "--onnx", "-o", str(tmp_path / "o.onnx")]) == 7
    assert "relative member names" in capsys.readouterr().err
    assert not (tmp_path / "o.onnx").exists()
    assert not (tmp_path.parent / "escaped.onnx").exists()


def test_manifest_of_a_newer_version(engine, tmp_path, capsys):
    path = rewritten(
        engine, tmp_path / "new.engine", lambda manifest, _: manifest.update(format_version=2)
    )
    assert run(["inspect", path]) == 7
    assert "Upgrade visionrt" in capsys.readouterr().err


def test_untouched_copy_still_reads(engine, tmp_path):
    path = rewritten(engine, tmp_path / "same.engine", lambda *_: None)
    assert run(["inspect", path, "--json"]) == 0
