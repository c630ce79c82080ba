"""Whole frames on a GPU: the checks that the emulated GPU passes, and those of ``gpu_checks``.

Engines are built for this GPU by every library that is installed. What the engine computes is
compared within tolerances; everything around it, given the engine's own outputs, bit for bit.
"""

from __future__ import annotations

import functools
import subprocess
import textwrap
from collections.abc import Callable

import gpu_checks
import gpu_models
import pytest
import real_gpu
import test_gpu_faults as faults
import test_gpu_heads as heads
import test_gpu_pipeline as frames
from real_models import RECIPES

from conftest import TESTS
from trtconvert.targets.base import Target
from visionrt import device
from visionrt.child_python import child_python

pytestmark = pytest.mark.gpu

FORMS = ("v8", "v8_rows", "v5", "yolox")
# Of the emulated tests: all that need no counts or faults of the fake driver.
EMULATED: dict[str, Callable[[], None]] = {
    "detector_frames": frames.detector_frames,
    "alternating_batches": frames.alternating_batches,
    "gpu_arrays": frames.gpu_arrays,
    "fixed_batch": frames.fixed_batch,
    "infinite_box": heads.infinite_box,
    "eight_threads": faults.eight_threads,
    "close_during_use": faults.close_during_use,
    "float16_outputs": functools.partial(heads.float16_outputs, "v8"),
    "filtered_classes": heads.filtered_classes,
    "pil_frames": frames.pil_frames,
    "kept_results": gpu_checks.kept_results,
    **{f"yolo_form-{form}": functools.partial(heads.yolo_form, form) for form in FORMS},
}
OWN: dict[str, Callable[[], None]] = {
    "graphs_are_replayed": gpu_checks.graphs_are_replayed,
    "capture_refused": gpu_checks.capture_refused,
    "out_of_memory": gpu_checks.out_of_memory,
    **{f"decoded-{form}": functools.partial(gpu_checks.decoded_exactly, form) for form in FORMS},
    "decoded-obb": functools.partial(gpu_checks.decoded_exactly, "obb"),
}


@pytest.fixture(scope="module")
def real(target: Target) -> real_gpu.RealGpu:
    return real_gpu.RealGpu(target)


@pytest.fixture
def platform(real: real_gpu.RealGpu, monkeypatch: pytest.MonkeyPatch) -> real_gpu.RealGpu:
    monkeypatch.setattr(gpu_models, "platform", real)
    return real


@pytest.mark.parametrize("check", sorted(EMULATED))
def test_as_on_the_emulated_gpu(platform: real_gpu.RealGpu, check: str) -> None:
    EMULATED[check]()


@pytest.mark.parametrize("check", sorted(OWN))
def test_frames(platform: real_gpu.RealGpu, check: str) -> None:
    OWN[check]()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_real_models(platform: real_gpu.RealGpu, name: str, precision: str) -> None:
    gpu_checks.real_model(name, precision)


def test_an_address_where_nothing_is(target: Target) -> None:
    """In a process of its own, for the GPU is lost to it; the exit must be clean."""
    name = "tensorrt" if target.backend == "tensorrt" else "rtx"
    paths = [str(TESTS / p) for p in ("gpu", "emulation", "emulation/fake_cuda", "python")]
    code = textwrap.dedent(f"""
        import sys
        sys.path[:0] = {paths!r}
        import gpu_checks, gpu_models, real_gpu
        gpu_models.platform = real_gpu.RealGpu(real_gpu.target_named({name!r}))
        gpu_checks.bad_address()
        """)
    command, environment = child_python(code)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("spec", sorted(gpu_checks.SPECS))
def test_preprocessing_writes_the_cpus_bytes(gpu: device.Device, spec: str) -> None:
    gpu_checks.preprocess_bytes(spec, cases=200)


def test_nms_keeps_the_cpus_indices(gpu: device.Device) -> None:
    gpu_checks.nms_indices(cases=1000, most=3000)
    gpu_checks.nms_indices(cases=3, most=30_000)
