"""``visionrt predict``: what it draws, prints and refuses."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_models import MEAN_COLOR_RECIPE, RECIPES, mean_color_model, model_path, write_engine

from visionrt.cli.main import run
from visionrt.cli.predict import expand, picture_names


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "tiny.engine", mean_color_model(), MEAN_COLOR_RECIPE)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, color in (("a.png", (255, 0, 0)), ("b.jpg", (0, 0, 255)), ("c.bmp", (0, 255, 0))):
        Image.new("RGB", (40, 30), color).save(folder / name)
    (folder / "notes.txt").write_text("not an image, and not asked for")
    return folder


def test_draws_a_picture_per_image(
    engine: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out" / "deep"
    assert run(["predict", str(photos), "-m", str(engine), "-o", str(output)]) == 0
    assert sorted(p.name for p in output.iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]
    with Image.open(output / "a.jpg") as drawn:
        assert drawn.size == (40, 30)
    out = capsys.readouterr().out
    assert "a.png" in out
    assert "3 pictures" in out


def test_json(engine: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["predict", str(photos), "-m", str(engine), "--json", "--no-pictures"])
    body = json.loads(capsys.readouterr().out)
    assert code == 0
    best = [r["classes"][0]["name"] for r in body["results"]]
    assert best == ["red", "blue", "green"]
    assert body["errors"] == []


def test_csv_has_a_row_per_class(
    engine: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(photos), "-m", str(engine), "--csv", "--no-pictures"]
    assert run([*arguments, "--top-k", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 6
    assert Path(rows[0]["image"]).name == "a.png"


def test_a_broken_image_is_reported_and_the_others_are_done(
    engine: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "b.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    output = tmp_path / "out"
    code = run(["predict", str(photos), "-m", str(engine), "-o", str(output), "--json"])
    captured = capsys.readouterr()
    body = json.loads(captured.out)
    assert code == 8
    assert len(body["results"]) == 2
    assert [Path(e["image"]).name for e in body["errors"]] == ["b.jpg"]
    assert captured.err.count("\n") == 1
    assert sorted(p.name for p in output.iterdir()) == ["a.jpg", "c.jpg"]


def test_sources_that_name_nothing(
    engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "none.jpg", tmp_path / "empty", tmp_path / "*.jpg"):
        assert run(["predict", str(source), "-m", str(engine)]) == 8
        assert str(source) in capsys.readouterr().err


def test_expand_takes_files_folders_and_globs_each_once(photos: Path) -> None:
    a = photos / "a.png"
    found = expand([str(a), str(photos), str(photos / "*.bmp"), str(photos / "**" / "*.jpg")])
    assert [p.name for p in found] == ["a.png", "b.jpg", "c.bmp"]


def test_a_file_of_any_name_is_tried_when_it_is_named(photos: Path) -> None:
    assert expand([str(photos / "notes.txt")]) == [photos / "notes.txt"]


def test_a_file_whose_name_looks_like_a_glob(photos: Path) -> None:
    path = photos / "x[1].png"
    shutil.copy(photos / "a.png", path)
    assert expand([str(path)]) == [path]


def test_pictures_of_the_same_stem_do_not_overwrite_each_other() -> None:
    paths = [Path("x/a.png"), Path("y/a.png"), Path("a.jpg"), Path("a-2.png")]
    names = list(picture_names(paths).values())
    assert len(set(names)) == 4
    assert names[0] == "a.jpg"


def test_output_that_cannot_be_a_folder(
    engine: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", str(photos / "a.png"), "-m", str(engine), "-o"]
    assert run([*arguments, str(photos / "a.png")]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["predct", "x"], "Did you mean predict?"),
        (["predict", "x", "-m", "e", "--confidnce", "0.5"], "Did you mean --confidence?"),
        (["predict", "x", "-m", "e", "--confidence", "2"], "0…1"),
        (["predict", "x"], "--engine"),
        (["bench", "e", "--batch", "0"], "not above 0"),
        ([], "COMMAND"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(arguments)
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert hint in err
    assert err.count("\n") == 1


def test_an_engine_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.engine").write_bytes(b"PK\x03\x04 but no more")
    assert run(["predict", "x.jpg", "-m", str(tmp_path / "x.engine")]) in (7, 8)
    assert capsys.readouterr().err.startswith("error: expected ")


def test_thresholds_reach_the_model(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "ssd_mobilenet_v2_coco"
    path = write_engine(tmp_path / "d.engine", model_path(name).read_bytes(), RECIPES[name])
    counts = []
    for confidence in ("0.3", "0.9"):
        arguments = ["predict", str(images / "coffee.png"), "-m", str(path), "--no-pictures"]
        assert run([*arguments, "--json", "--confidence", confidence]) == 0
        body = json.loads(capsys.readouterr().out)
        counts.append(len(body["results"][0]["detections"]))
    assert counts[0] > counts[1]


def test_bench_reports_and_compares(
    engine: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    quick = ["--warmup", "0", "--duration", "0", "--iterations", "12"]
    assert run(["bench", str(engine), *quick, "--json", "--percentile", "50,99.9"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["calls"] == 12
    latency = body["latency_ms"]
    assert latency["min"] <= latency["median"] <= latency["p99.9"] <= latency["max"]
    assert latency["median"] == latency["p50"]
    assert {"preprocess", "inference", "postprocess"} <= set(body["stages_ms"])

    other = shutil.copy(engine, tmp_path / "other.engine")
    assert run(["bench", str(engine), *quick, "--compare", str(other), "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert len(body["engines"]) == 2
    low, high = body["speedup"]["quartiles"]
    assert low <= body["speedup"]["median"] <= high

    assert run(["bench", str(engine), *quick, "--batch", "3", "--callers", "2"]) == 0
    assert "24 calls of 3, 2 caller(s)" in capsys.readouterr().out


def test_bench_figures_are_those_of_the_samples() -> None:
    from visionrt.bench import Timing

    ms = np.arange(1.0, 101.0)
    timing = Timing(100, 2, 1, ms, {"inference": 1.0}, images_per_second=40.0)
    latency = timing.to_json()["latency_ms"]
    assert latency["median"] == 50.5
    assert latency["p90"] == pytest.approx(90.1)
    assert latency["min"], latency["max"] == (1.0, 100.0)


def test_unknown_flag_of_bench_with_callers_and_compare(
    engine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(engine), "--compare", str(engine), "--callers", "2"]) == 2
    assert "--callers" in capsys.readouterr().err
