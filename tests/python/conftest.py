"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real_models import MEAN_COLOR_RECIPE, mean_color_model

from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.model import Model


@pytest.fixture
def color_model() -> Iterator[Model]:
    """A classifier whose answers are known exactly."""
    with Model(MEAN_COLOR_RECIPE, OnnxRuntimeBackend(mean_color_model())) as model:
        yield model
