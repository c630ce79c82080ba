"""The fake GPU that the tests of this folder run on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fake_cuda"))

from fake_gpu import FakeGpu, UnavailableError, fake_driver, pycuda_site
from fake_gpu import tiny_kernels as build_tiny_kernels


@pytest.fixture(scope="session")
def fake_gpu() -> FakeGpu:
    """The fake driver and PyCUDA, built on first use. Skips where a machine cannot build them."""
    try:
        return FakeGpu(fake_driver(), pycuda_site())
    except UnavailableError as error:
        pytest.skip(f"the fake GPU cannot be built: {error}")


@pytest.fixture(scope="session")
def tiny_kernels(fake_gpu: FakeGpu) -> Path:
    """A library of three small kernels."""
    return build_tiny_kernels()
