"""The cases of ``make bench`` still run: each of their candidates, once."""

from __future__ import annotations

import importlib

import pytest

pytest.importorskip("cv2")


@pytest.mark.parametrize("stage", ["preprocess", "detections", "end_to_end"])
def test_every_candidate_runs(stage: str) -> None:
    cases = importlib.import_module(f"bench_{stage}").cases()
    assert cases
    for case in cases:
        assert len(case.candidates) > 1
        for run in case.candidates.values():
            run()
