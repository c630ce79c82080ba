"""Fixtures of the runtime's tests."""

from __future__ import annotations

from collections import Counter
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


@pytest.fixture
def live() -> Iterator[Counter[str]]:
    """What is live on the double of a GPU, by kind."""
    # Here: the double needs the library's bindings, which other tests do without.
    import pycuda_double
    import tensorrt_double as double

    double.destroyed.clear()
    double.profile_switches.clear()
    with pycuda_double.installed() as counts:
        yield counts
