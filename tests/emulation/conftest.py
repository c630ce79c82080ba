"""The fake GPU that the tests of this folder run on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_gpu import FakeGpu, UnavailableError, fake_driver, pycuda_site
from fake_gpu import tiny_kernels as build_tiny_kernels

# What the test files import, besides their own folder.
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "fake_cuda"), str(HERE.parent / "python")]


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


@pytest.fixture(scope="session")
def emulated_kernels(fake_gpu: FakeGpu) -> Path:
    """The library of the emulated kernels of csrc. Skips where it cannot run."""
    from emulation import build
    from visionrt import _core

    if build.compiler() is None:
        pytest.skip("the emulation is built by g++")
    if not _core.has_kernels():
        pytest.skip("this build of the extension has no CUDA half")
    return build.kernel_library()
