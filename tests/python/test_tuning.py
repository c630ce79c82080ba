"""Ways to run the CPU twin: timed, stored, chosen and told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_models import (
    MEAN_COLOR_RECIPE,
    RECIPES,
    RED,
    mean_color_model,
    model_path,
    plain,
    write_engine,
)

import visionrt
from visionrt import cpu_way, tuning
from visionrt.backends.openvino import OpenVinoBackend
from visionrt.cli.main import run
from visionrt.cpu_runner import CpuRunner
from visionrt.cpu_settings import (
    CpuChoice,
    CpuSettings,
    cpu_signature,
    safe_settings,
    usable_cores,
)
from visionrt.engine_file import EngineFile, write_engine_file
from visionrt.errors import EngineFileError, ModelError

ALONE = CpuSettings(threads=1)


def tuned(**changes: Any) -> CpuChoice:
    choice = CpuChoice(cpu_signature(), ALONE, CpuSettings("openvino", 1, 2), 1.5, 900.0)
    return dataclasses.replace(choice, **changes)


def with_choice(path: Path, choice: CpuChoice | None) -> Path:
    write_engine(path, mean_color_model(), MEAN_COLOR_RECIPE)
    with EngineFile(path) as file:
        manifest = dataclasses.replace(file.manifest, cpu=choice)
        members = {name: file.read(name) for name in manifest.members}
    write_engine_file(path, manifest, members)
    return path


def test_every_core_is_used_by_each_candidate() -> None:
    for cores in (1, 2, 3, 8):
        found = tuning.candidates(cores)
        assert len(set(found)) == len(found)
        assert CpuSettings("onnxruntime", cores, 1) in found
        assert CpuSettings("openvino", 1, cores) in found
        for settings in found:
            assert settings.threads is not None
            assert cores // 2 < settings.threads * settings.streams <= cores or cores == 1


def test_a_real_model_is_timed_on_every_candidate() -> None:
    steps: list[tuple[int, int]] = []
    model = model_path("selfie_segmentation").read_bytes()
    choice = tuning.tune(model, lambda done, total: steps.append((done, total)))
    assert choice.cpu == cpu_signature()
    assert choice.call.streams in (1, usable_cores())
    total = tuning.step_count()
    assert steps == [(i, total) for i in range(total + 1)]
    # A stream of runs is never slower than one at a time, but for noise.
    assert choice.doubt or choice.stream_per_second * choice.call_ms / 1e3 > 0.7
    assert 0 < choice.call_ms < 1e3


def test_a_run_too_short_to_matter_is_not_timed_at_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "candidates", lambda cores: pytest.fail("timed in vain"))
    choice = tuning.tune(mean_color_model())
    assert choice.call == ALONE
    assert choice.stream == CpuSettings(threads=1, streams=usable_cores())


@pytest.mark.parametrize(
    ("share", "spread", "said"),
    [(1.0, 1.1, ""), (0.91, 1.3, ""), (0.75, 1.1, "only 75%"), (0.99, 1.8, "differed 1.8-fold")],
)
def test_doubtful_timings_are_told_from_good_ones(share: float, spread: float, said: str) -> None:
    assert (said in tuning.doubt(share, spread)) if said else tuning.doubt(share, spread) == ""


@pytest.mark.usefixtures("busy_machine")
def test_a_busy_machine_is_noticed_stored_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.engine"
    write_engine(
        path, model_path("selfie_segmentation").read_bytes(), RECIPES["selfie_segmentation"]
    )
    assert run(["tune", str(path)]) == 0
    warning = capsys.readouterr().err
    assert "warning: only " in warning
    assert "repeat this on a quiet machine" in warning
    with visionrt.load(path, device="cpu") as model:
        assert "timed badly: only " in model.explain()


def test_the_final_is_between_those_that_came_near_and_the_default_is_the_first_library_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, slower = CpuSettings(threads=1), CpuSettings(threads=2)
    other, far = CpuSettings("openvino", 1), CpuSettings("openvino", 2)
    asked: list[Any] = []

    def contest(ways: dict[CpuSettings, Any], default: CpuSettings, **limits: float) -> Any:
        asked.append((list(ways), default))
        # Engines of both libraries are open, and each way is timed on its own.
        assert all(way() > 0 for way in ways.values())
        return {default: 3.0}

    monkeypatch.setattr(tuning, "contest", contest)
    model = mean_color_model()
    screened = {own: 1.1, other: 1.0, slower: 1.2, far: 2.0}
    assert tuning._final(model, screened, CpuRunner.burst_ms) == tuning.Timed(own, 3.0)
    assert asked == [([other, own, slower], own)]
    # With nothing near it, the first needs no final.
    assert tuning._final(model, {other: 1.0, own: 2.0}, CpuRunner.burst_ms).settings == other
    assert len(asked) == 1


def test_a_graph_that_does_not_run_is_refused() -> None:
    with pytest.raises(ModelError):
        tuning.tune(b"no graph")


def test_the_choice_of_this_cpu_is_used(tmp_path: Path) -> None:
    path = with_choice(tmp_path / "a.engine", tuned())
    with visionrt.load(path, device="cpu") as model:
        assert "as tuned on this CPU" in model.explain()
        assert model.backend.name == "onnxruntime"
        assert [r.best for r in model.stream([plain(RED)] * 5)] == ["red"] * 5
        streaming = model._streaming()
        assert streaming.backend.name == "openvino"
        assert model._streaming() is streaming
    with pytest.raises(visionrt.errors.UsageError, match="closed"):
        streaming(plain(RED))


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        (None, "nothing was timed"),
        (tuned(cpu="x86_64 Other, 64 cores"), "tuned on x86_64 Other, 64 cores"),
    ],
    ids=["not tuned", "another CPU"],
)
def test_elsewhere_the_default_is_used_and_said(
    tmp_path: Path, choice: CpuChoice | None, reason: str
) -> None:
    with visionrt.load(with_choice(tmp_path / "a.engine", choice), device="cpu") as model:
        (line,) = [x for x in model.explain().splitlines() if x.startswith("CPU settings")]
        assert "the default" in line
        assert reason in line
        assert "visionrt tune" in line


def test_what_is_not_installed_or_asked_otherwise_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = cpu_way.cpu_way("openvino", 3, tuned())
    assert asked.call == asked.stream == CpuSettings("openvino", 3)
    monkeypatch.setattr(cpu_way.importlib.util, "find_spec", lambda name: None)
    way = cpu_way.cpu_way(None, None, tuned())
    assert (way.call, way.stream) == safe_settings()
    assert "not installed" in way.note


def test_a_file_replaced_under_a_loaded_model_is_not_mixed_with_it(tmp_path: Path) -> None:
    path = with_choice(tmp_path / "a.engine", tuned())
    with visionrt.load(path, device="cpu") as model:
        with EngineFile(path) as file:
            manifest = dataclasses.replace(file.manifest, source={"file": "b", "sha256": "1"})
            members = {name: file.read(name) for name in manifest.members}
        write_engine_file(path, manifest, members)
        with pytest.raises(EngineFileError, match="the file that was loaded"):
            next(iter(model.stream([plain(RED)])))
        assert model(plain(RED)).best == "red"


def test_the_command_stores_what_it_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = with_choice(tmp_path / "a.engine", tuned(cpu="another"))
    before = EngineFile(path).manifest
    assert run(["tune", str(path), "--json"]) == 0
    printed = CpuChoice.from_json(json.loads(capsys.readouterr().out))
    with EngineFile(path) as file:
        assert file.manifest == dataclasses.replace(before, cpu=printed)
        assert file.read("model.onnx") == mean_color_model()
    assert printed.cpu == cpu_signature()
    assert run(["tune", str(tmp_path / "absent.engine")]) == 7
    bare = write_engine(tmp_path / "b.engine", mean_color_model(), MEAN_COLOR_RECIPE, twin=False)
    assert run(["tune", str(bare)]) == 7


@pytest.mark.parametrize("value", [{}, {"threads": 0}, {"streams": True}, {"backend": 3, "x": 1}])
def test_damaged_settings_are_refused(tmp_path: Path, value: dict[str, Any]) -> None:
    body = tuned().to_json()
    body["call"] = value and {**body["call"], **value}
    with pytest.raises((KeyError, TypeError, ValueError)):
        CpuChoice.from_json(body)


@pytest.mark.parametrize(("threads", "streams"), [(1, None), (1, 2), (None, None), (2, 1)])
def test_openvino_takes_threads_of_a_run_and_runs_at_once(
    threads: int | None, streams: int | None
) -> None:
    backend = OpenVinoBackend(mean_color_model(), threads=threads, streams=streams)
    at_once = streams or (1 if threads is None else max(1, usable_cores() // threads))
    assert backend._compiled.get_property("NUM_STREAMS") == at_once
    feed = {"image": np.ones((1, 3, 8, 8), np.float32)}
    np.testing.assert_allclose(backend.run(feed)["logits"], [[1, 1, 1]])
    backend.close()
