"""Fixtures that several tests of the converter share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from diff_engines import changed, engine
from exports import run_there
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


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Exports a model of ``export_models.py`` by name, once; needs what ``exports.py`` says."""
    folder = tmp_path_factory.mktemp("exports")

    def export(name: str) -> Path:
        path = folder / f"{name}.onnx"
        if not path.exists():
            run_there("export_models.py", name, path)
        return path

    return export
