"""The table of ranges: written, read, and refused where it is wrong."""

from __future__ import annotations

import json

import pytest

from trtconvert.calibration.table import read_table, write_table
from visionrt.errors import UsageError


def test_a_table_survives_the_file(tmp_path):
    path = tmp_path / "ranges.json"
    write_table(path, {"b": 0.1, "a": 3.0}, "mse")
    assert read_table(path, ["a", "b"]) == ({"a": 3.0, "b": 0.1}, "mse")
    assert list(json.loads(path.read_text())["thresholds"]) == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": "other"}',
        '{"format": "trtconvert-ranges", "version": 9, "thresholds": {}}',
        '{"format": "trtconvert-ranges", "version": 1, "thresholds": {"a": -1}}',
        '{"format": "trtconvert-ranges", "version": 1, "thresholds": {"a": NaN}}',
        '{"format": "trtconvert-ranges", "version": 1, "thresholds": {"a": true}}',
        '{"format": "trtconvert-ranges", "version": 1, "thresholds": {"other": 1.0}}',
    ],
)
def test_a_wrong_table_is_refused(tmp_path, text):
    path = tmp_path / "ranges.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"ranges\.json"):
        read_table(path, ["a"])
    with pytest.raises(UsageError):
        read_table(tmp_path / "nowhere.json", ["a"])
