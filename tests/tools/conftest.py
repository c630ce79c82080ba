"""Fixtures that several tests of the converter share."""

from __future__ import annotations

from pathlib import Path

import pytest
from diff_engines import changed, engine
from tiny_models import save, save_pictures, tiny_classifier


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Model, pictures and output path in one folder."""
    save(tiny_classifier(), tmp_path / "tiny.onnx")
    save_pictures(tmp_path / "pictures")
    return tmp_path


@pytest.fixture
def pair(tmp_path):
    """Engines whose answers are each other's, class 0 for 1 and so on, and pictures."""
    same, other = tiny_classifier(), changed(lambda w: w[[1, 0, 3, 2]])
    a = engine(tmp_path / "a.engine", same, typed=same)
    b = engine(tmp_path / "b.engine", same, typed=other)
    c = engine(tmp_path / "c.engine", other, typed=other)
    return a, b, c, save_pictures(tmp_path / "pictures", 6)
