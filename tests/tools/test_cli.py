"""What the command line accepts, and what it says to mistakes; it as a program."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from cli_runs import RECIPE

from trtconvert.cli.app import cli, run
from trtconvert.cli.build import options_from


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


# As a shell starts it: what is printed waits in a buffer.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("command", ["trtconvert inspect {}", "visionrt --help", "visionrt doctor"])
def test_reader_that_goes_away_is_no_error(tiny, command):
    command = f"{sys.executable} -m {command.format(tiny / 'tiny.onnx')} | true; "
    command += "echo ${PIPESTATUS[0]}"
    done = subprocess.run(
        ["bash", "-c", command],
        env=BUFFERED,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_reader_that_goes_away_between_two_tables_is_no_error(tiny):
    """The first table waits in a buffer, which the second one flushes."""
    code = f"""
import os, sys
from trtconvert.cli import show
from trtconvert.cli.app import run
read, write = os.pipe()
os.dup2(write, 1)
kept = show.print_table
def print_table(*args):
    kept(*args)
    sys.stdout.flush()  # this one still arrives
    os.close(read); os.close(write)
    show.print_table = kept
    sys.stdout.write("the next")
show.print_table = print_table
import trtconvert.cli.inspect as inspect
inspect.print_table = lambda *args: show.print_table(*args)
code = run(["inspect", {str(tiny / "tiny.onnx")!r}])
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=BUFFERED,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


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
