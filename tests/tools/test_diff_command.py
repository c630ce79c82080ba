"""``trtconvert diff`` as it is typed."""

from __future__ import annotations

import json

import pytest
from tiny_models import save, tiny_classifier

from trtconvert.cli.app import run
from trtconvert.cli.diff import show
from trtconvert.diff.compare import DiffReport
from visionrt.metrics import Agreement


def command(*arguments):
    return run(["diff", *map(str, arguments)])


def test_the_command_shows_tables(pair, tmp_path, capsys):
    a, _, c, pictures = pair
    assert command(a, c, "--data", pictures, "-o", tmp_path / "out", "--worst", 2) == 0
    captured = capsys.readouterr()
    assert not captured.err
    for word in ("top1", "flips", "images that differ the most", "CPU twin", "report:"):
        assert word in captured.out
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 2


def test_long_tables_show_what_differs_first(capsys):
    def row(index, same):
        return {"class_id": index, "name": f"c{index}", "reference": 5, "candidate": 5} | {
            "same": same
        }

    rows = [row(index, 5) for index in range(40)] + [row(40, 2)]
    report = DiffReport("a", "b", "", "", "classify", Agreement("top1", 9, 0.5), rows, [], [], [])
    show(report)
    out = capsys.readouterr().out
    assert "c40" in out
    assert out.index("c40") < out.index("c0 ")
    assert "c39" not in out
    assert "and 11 more" in out


def test_a_drop_beyond_the_limit_exits_4_after_the_report(pair, tmp_path, capsys):
    a, _, c, pictures = pair
    arguments = (a, c, "--data", pictures, "--max-drop", "top1=50%", "-o", tmp_path / "out")
    assert command(*arguments) == 4
    captured = capsys.readouterr()
    assert "flips" in captured.out
    assert captured.err.startswith("error: expected top1 agreement with")
    assert captured.err.count("\n") == 1
    assert (tmp_path / "out" / "report.json").is_file()
    assert command(*arguments, "--json") == 4
    printed = json.loads(capsys.readouterr().out)
    assert printed["exit_code"] == 4
    assert printed["agreement"]["agreement"] == 0.0
    assert command(a, a, *arguments[2:], "--quiet") == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--max-drop", "map=1%"), 2),
        (("--max-drop", "much"), 2),
        (("--worst", "-1"), 2),
        (("--confidence", "2"), 2),
        (("--data", "nowhere"), 8),
    ],
)
def test_mistakes(pair, tmp_path, capsys, more, code):
    a, _, c, pictures = pair
    assert command(a, c, "--data", pictures, "-o", tmp_path / "out", *more) == code
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_mistakes_in_the_files(pair, tmp_path, capsys):
    a, _, _, pictures = pair
    model = save(tiny_classifier(), tmp_path / "tiny.onnx")
    assert command(model, model, "--data", pictures) == 2
    assert command(a, tmp_path / "gone.engine", "--data", pictures) == 7
    assert command(a, pictures / "picture0.png", "--data", pictures) == 7
    assert command(a, tmp_path / "gone.onnx", "--data", pictures) == 8
    assert command(a, a, "--data", pictures, "-o", model) == 8
    assert command(a, a) == 2
    assert capsys.readouterr().err.count("error: ") == 6
