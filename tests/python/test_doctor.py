"""``visionrt doctor``: what works, what is half installed, and what to type."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import textwrap
from pathlib import Path
from unittest import mock

import pytest

from visionrt import doctor
from visionrt.cli import doctor as cli
from visionrt.device import gpu_problem
from visionrt.doctor import BLOCKED, BROKEN, MISSING, WORKS, Check, Report, examine

GPU = {
    "index": 0,
    "name": "RTX 3060",
    "compute_capability": "86",
    "memory_bytes": 12 << 30,
    "driver_version": "13.0",
}


@pytest.fixture(scope="module")
def report() -> Report:
    return examine()


def by_name(report: Report) -> dict[str, Check]:
    return {c.name: c for c in (*report.cpu, report.gpu, *report.gpu_libraries)}


def test_this_machine_runs_the_cpu_twin(report: Report) -> None:
    found = by_name(report)
    assert found["onnxruntime"].state == WORKS
    assert found["onnxruntime"].version
    assert report.will_use["cpu twin"] == "onnxruntime"
    assert report.exit_code == 0
    assert report.packages["numpy"]


def test_the_gpu_is_as_the_runtime_finds_it(report: Report) -> None:
    found = by_name(report)
    problem = gpu_problem(0)
    assert found["gpu"].problem == problem
    assert (found["gpu"].state == WORKS) == (problem == "")
    if problem:
        assert found["gpu"].cure
        assert found["tensorrt_rtx"].state == BLOCKED
        assert found["tensorrt_rtx"].problem == "it needs a usable GPU"
        assert report.will_use["engine plans"] == ""


def test_what_is_missing_has_its_command(report: Report) -> None:
    for check in by_name(report).values():
        assert bool(check.problem) == (check.state != WORKS)
        if check.state == MISSING:
            assert "pip install" in check.cure


def run(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    code = cli.run(parser.parse_args(flags))
    return code, capsys.readouterr().out


def test_json(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(cli, "examine", return_value=report):
        code, out = run(capsys, "--json")
    value = json.loads(out)
    assert code == 0
    assert value["ok"] is True
    assert value["will_use"]["cpu twin"] == "onnxruntime"
    assert {c["name"] for c in value["cpu"]} == {"onnxruntime", "openvino"}


def test_text(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(cli, "examine", return_value=report):
        code, out = run(capsys)
    assert code == 0
    assert "The CPU twin by      onnxruntime" in out
    for check in by_name(report).values():
        assert check.name in out
        assert check.problem in out
        assert check.cure in out


def sample(**changes: object) -> Report:
    fields = {
        "system": {"visionrt": "1", "python": "3", "platform": "p", "cuda kernels": "yes"},
        "cpu": (Check("onnxruntime", "", MISSING, "no module", "pip install onnxruntime"),),
        "gpu": Check("gpu", "2026.1", WORKS, details=GPU),
        "gpu_libraries": (Check("tensorrt_rtx", "1.7", WORKS),),
        "packages": {"numpy": "2.0", "pillow": ""},
        "converter_missing": ("onnx",),
        "will_use": {"engine plans": "tensorrt_rtx", "cpu twin": ""},
        "warnings": ("beware",),
    }
    return Report(**{**fields, **changes})  # type: ignore[arg-type]


def test_without_a_cpu_back_end_the_exit_code_is_6(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(cli, "examine", return_value=sample()):
        code, out = run(capsys)
    assert code == 6
    assert "The CPU twin by      nothing on this machine" in out
    assert "RTX 3060, SM86, 12.0 GiB, driver for CUDA 13.0" in out
    assert "pillow (missing)" in out
    assert 'pip install "trtconvert[convert]"' in out
    assert "Warning    beware" in out
    works = (Check("openvino", "2026.4", WORKS),)
    assert dataclasses.replace(sample(), cpu=works).exit_code == 0


@pytest.mark.parametrize(
    ("body", "state", "words"),
    [
        ("raise ImportError('libnvinfer.so.11: cannot open')", MISSING, "libnvinfer.so.11"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", BROKEN, "SIGSEGV"),
        ("import sys; sys.exit(3)", BROKEN, "exit status 3"),
        ("print('a banner')\n", MISSING, "without bindings"),
        ("__version__ = '10.3.0'\nclass Runtime: pass\n", MISSING, "10.3.0"),
        ("print('a banner')\n__version__ = '10.12.0.36'\nclass Runtime: pass\n", WORKS, ""),
    ],
    ids=["unloadable", "crashes", "exits", "emptied", "old", "good"],
)
def test_a_library_that_is_half_there(tmp_path: Path, body: str, state: str, words: str) -> None:
    """A crash, an exit or a banner while a library loads does not end or garble the report."""
    (tmp_path / "tensorrt.py").write_text(body)
    with mock.patch.object(sys, "path", [str(tmp_path), *sys.path]):
        check = doctor._finish_probe("tensorrt", doctor._start_probe("tensorrt"))
    assert (check.state, check.version) == (state, "10.12.0.36" if state == WORKS else "")
    assert words in check.problem
    if state != WORKS:
        assert "trtconvert[tensorrt]" in check.cure


def test_a_library_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("import time; time.sleep(60)")
    with (
        mock.patch.object(sys, "path", [str(tmp_path), *sys.path]),
        mock.patch.object(doctor, "_TIMEOUT_S", 0.5),
    ):
        check = doctor._finish_probe("tensorrt", doctor._start_probe("tensorrt"))
    assert check.state == BROKEN
    assert "no answer within" in check.problem


def test_installed_but_failing_is_broken(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libcudart.so.13 is not there')")
    folder = tmp_path / "tensorrt_cu13-11.4.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorrt-cu13\nVersion: 11.4.0\n"
    )
    with mock.patch.object(sys, "path", [str(tmp_path), *sys.path]):
        check = doctor._finish_probe("tensorrt", doctor._start_probe("tensorrt"))
    assert (check.state, check.version) == (BROKEN, "11.4.0")
    assert "libcudart.so.13" in check.problem


def test_two_distributions_of_one_library(tmp_path: Path) -> None:
    for name, version in (("tensorrt-cu13", "11.4.0"), ("tensorrt-cu12", "10.13.2")):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            textwrap.dedent(f"""\
                Metadata-Version: 2.1
                Name: {name}
                Version: {version}
                """)
        )
    gpu = Check("gpu", "", WORKS, details=GPU)
    missing = Check("tensorrt_rtx", "", MISSING, "no module", "Run: pip install it")
    with mock.patch.object(sys, "path", [str(tmp_path), *sys.path]):
        warnings = doctor._warnings(gpu, [missing], {"cuda kernels": "no"})
    assert "tensorrt-cu13 11.4.0 and tensorrt-cu12 10.13.2 overwrite" in warnings[0]
    assert "nothing to run plans with. Run: pip install it" in warnings[1]
    assert "no CUDA kernels" in warnings[2]


def test_probes_see_what_this_interpreter_sees() -> None:
    command, environment = doctor.child_python("pass")
    assert command[0] == sys.executable
    assert environment["PYTHONPATH"].split(os.pathsep) == [p for p in sys.path if p]
