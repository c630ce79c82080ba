"""Fixtures that several tests of the converter share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import save, save_pictures, tiny_classifier


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Model, pictures and output path in one folder."""
    save(tiny_classifier(), tmp_path / "tiny.onnx")
    save_pictures(tmp_path / "pictures")
    return tmp_path
