"""A pytest plugin for processes on the fake driver: runs the tests of tests/gpu there.

Their plans are run by ``device_engines``; and after each test nothing may be live or found wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import device_engines
import fake_cuda
import gpu_models
import pytest
import tensorrt_engines

from trtconvert.targets.base import BuiltPlan


class _Target:
    """Builds headers of plans."""

    def build(self, *_: Any) -> BuiltPlan:
        return BuiltPlan(tensorrt_engines.rtx_plan(), gpu_models.PLAN)


def pytest_collection_finish() -> None:
    import real_gpu

    built = real_gpu.RealGpu.plans

    @contextlib.contextmanager
    def plans(self: Any, model: bytes, session: Any, **options: Any) -> Iterator[gpu_models.Plans]:
        self._target = _Target()
        with (
            built(self, model, session, **options) as made,
            device_engines.plans_run(device_engines.Session(model)),
        ):
            yield made

    real_gpu.RealGpu.plans = plans  # type: ignore[method-assign]
    fake_cuda.set_memory(512 << 20)  # one check fills it, and the host's memory stands in for it


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert not fake_cuda.findings(), fake_cuda.findings()
    assert not fake_cuda.leaks(), fake_cuda.leaks()
