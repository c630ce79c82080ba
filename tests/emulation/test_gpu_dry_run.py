"""The checks of tests/gpu, run on the fake GPU: what they ask can be answered, and is met there."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cuda
import onnx
import pytest
from fake_gpu import FakeGpu
from real_models import ASTRONAUT, COFFEE, RECIPES

from trtconvert.passes.emulate_half import emulate_half
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.image_io import decode
from visionrt.preprocess import Preprocessor

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "gpu"))

# With fewer cases than a GPU has time for.
CHECKS: dict[str, tuple[Any, ...]] = {
    **{
        f"preprocess_bytes {spec}": (spec, 10)
        for spec in ("yolo", "yolox", "stretch", "imagenet", "bytes", "halves")
    },
    "nms_indices": (30, 300),
}
# FP32 and FP16 are the same here, and eight threads have a test of their own.
PARTS = {
    "test_as_on_the_emulated_gpu and not eight_threads": 14,
    "test_frames": 8,
    "test_real_models and fp16": 5,
}


@pytest.mark.parametrize("part", PARTS)
def test_whole_frames(fake_gpu: FakeGpu, emulated_kernels: Path, part: str) -> None:
    """tests/gpu/test_gpu_end_to_end.py as it is, in a process on the fake driver."""
    environment = fake_gpu.environment(kernels=emulated_kernels, fast=True)
    file = HERE.parent / "gpu" / "test_gpu_end_to_end.py"
    command = [sys.executable, "-m", "pytest", "-p", "dry_gpu", "-p", "no:xdist", "-q"]
    done = subprocess.run(
        [*command, "--require-gpu", str(file), "-k", f"rtx and {part}"],
        env=environment,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{PARTS[part]} passed, " in done.stdout, done.stdout


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_kernels(fake_gpu: FakeGpu, emulated_kernels: Path, check: str) -> None:
    fake_gpu.run(run_check, check, kernels=emulated_kernels, fast=True)


def run_check(check: str) -> None:
    function = getattr(importlib.import_module("gpu_checks"), check.split(maxsplit=1)[0])
    function(*CHECKS[check])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_tolerance_is_above_the_rounding_of_fp16(name: str) -> None:
    """With float16 rounding after each node on the CPU; and far below what a wrong image gives."""
    checks = importlib.import_module("gpu_checks")
    typed = checks.graph(name, "fp16")
    limit = checks.rounding(typed, "fp16")
    rounded = emulate_half(onnx.load_from_string(typed)).SerializeToString()
    engines = [OnnxRuntimeBackend(model) for model in (checks.graph(name, "fp32"), rounded)]
    input_name = engines[0].inputs[0].name
    head, prepare = RECIPES[name].head, Preprocessor(RECIPES[name].preprocess)
    images = [decode(image) for image in (ASTRONAUT, COFFEE)]
    (wanted, other), got = (
        [engine.run({input_name: prepare([image])}) for image in images] for engine in engines
    )
    assert max(checks.output_errors(head, got[0], wanted).values()) <= limit
    assert max(checks.output_errors(head, other, wanted).values()) > 3 * limit
    for engine in engines:
        engine.close()


def test_the_operations_that_are_timed(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    """Their times here mean nothing; what they queue is valid."""
    fake_gpu.run(timed_operations, kernels=emulated_kernels, fast=True)


def timed_operations() -> None:
    sys.path.append(str(HERE.parents[1] / "benchmarks"))
    gpu_kernels = importlib.import_module("gpu_kernels")
    device = importlib.import_module("visionrt.device").open_device(0)
    bench = gpu_kernels.Bench(device)
    with device.current():
        for operation in gpu_kernels.operations(bench):
            if "30000" in operation.name:
                continue  # takes long here
            before = fake_cuda.calls("execute")
            operation.enqueue(bench.stream.handle)
            bench.stream.synchronize()
            assert 1 <= fake_cuda.calls("execute") - before <= operation.launches, operation.name
            # 1 TB/s: 6 MB of image and 5 MB of tensor take 11 µs.
            if operation.name.startswith("preprocess 1080×1920 to 640×640"):
                assert operation.bytes == 3 * 1080 * 1920 + 4 * 3 * 640 * 640
                assert operation.floor_us(1e12) == pytest.approx(11.136)
                assert operation.limit_us(1e12) == pytest.approx(121.36)
    bench.close()


def test_a_bad_address_on_the_fake_gpu(fake_gpu: FakeGpu, emulated_kernels: Path) -> None:
    fake_gpu.run(bad_address, kernels=emulated_kernels, loses_context=True)


def bad_address() -> None:
    importlib.import_module("gpu_checks").bad_address()
    assert any("out of bounds" in finding for finding in fake_cuda.findings())
    # What a lost context held cannot be freed: no leak check.
    sys.stdout.flush()
    os._exit(0)
