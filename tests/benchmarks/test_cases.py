"""The cases of ``make bench`` still run: each of their candidates, once."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"

pytest.importorskip("cv2")


@pytest.mark.parametrize("stage", ["preprocess", "detections", "end_to_end"])
def test_every_candidate_runs(stage: str) -> None:
    cases = importlib.import_module(f"bench_{stage}").cases()
    assert cases
    for case in cases:
        assert len(case.candidates) > 1
        for run in case.candidates.values():
            run()


def test_several_runs_end_in_a_table_reasons_and_a_file(tmp_path: Path) -> None:
    command = [sys.executable, str(RUN), "--only", "detections", "--runs", "2", "--rounds", "1"]
    environment = {k: v for k, v in os.environ.items() if k != "VISIONRT_PEER_PYTHON"}
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "out.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "run 2 of 2" in done.stderr
    body = json.loads((tmp_path / "out.json").read_text())
    assert body["runs"] == 2
    assert len(body["lines"]) >= 5
    for line in body["lines"]:
        assert len(line["per_run"]) == 2
        assert line["what"] in done.stdout
        assert line["verdict"] in ("met", "near", "missed")
        # Every line at or over its target, or why not.
        assert (line["verdict"] == "met") != bool(line["reason"])
        assert line["reason"] in done.stdout
    for peer, reason in body["left_out"].items():
        assert f"{peer} is left out: {reason}" in done.stdout


def test_a_run_of_nothing_is_refused() -> None:
    for flag in ("--runs", "--rounds", "--images"):
        command = [sys.executable, str(RUN), flag, "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert f"{flag}: " in done.stderr
