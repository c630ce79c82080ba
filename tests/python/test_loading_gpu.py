"""How load chooses among plans, on the double of a GPU (an SM86) and of TensorRT-RTX."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pycuda_double as cuda
import pytest
import tensorrt_double as double
from real_models import MEAN_COLOR_RECIPE, mean_color_model, plain, write_engine

import visionrt
from visionrt.backends import tensorrt as backend_module
from visionrt.errors import MissingDependencyError
from visionrt.manifest import PlanInfo

SM86 = PlanInfo("plans/a.plan", "tensorrt_rtx", "rtx:sm86", "1.7.1.116", ("86",), 1.0)
SM120 = replace(SM86, member="plans/b.plan", target="rtx:sm120", compute_capabilities=("120",))
ENGINE = double.EngineSpec(
    tensors=[
        ("image", "INPUT", "FLOAT", (-1, 3, 8, 8), "DEVICE"),
        ("logits", "OUTPUT", "FLOAT", (-1, 3), "DEVICE"),
    ],
    compute=lambda feeds: {"logits": feeds["image"].mean(axis=(2, 3))},
    profiles=[{"image": ((1, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8))}],
)
RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def plan_bytes(mask: int) -> bytes:
    head = b"vtrt" + struct.pack("<IIIQ", 0, 2, 0, 64) + b"\x01\x07\x01\x74vtrt"
    return (head + struct.pack("<I", mask)).ljust(64, b"\0")


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    library = double.library_running(ENGINE)
    with (
        cuda.installed(),
        mock.patch.object(backend_module, "load_library", return_value=library),
    ):
        yield


def engine(path: Path, *plans: PlanInfo) -> Path:
    bits = {"86": 0b100, "120": 0b10000}
    members = {p.member: (p, plan_bytes(bits[p.compute_capabilities[0]])) for p in plans}
    return write_engine(path, mean_color_model(), MEAN_COLOR_RECIPE, plans=members)


@pytest.mark.parametrize("device", ["auto", "cuda:0"])
def test_a_plan_for_this_gpu_runs_and_agrees_with_the_twin(tmp_path: Path, device: str) -> None:
    path = engine(tmp_path / "a.engine", SM120, SM86)
    images = [plain(c, *s) for c in (RED, GREEN, BLUE) for s in ((6, 9), (40, 3))]
    with visionrt.load(path, device="cpu") as twin:
        expected = [r.logits for r in twin(images)]
    with visionrt.load(path, device=device) as model:
        assert model.device == "cuda:0"
        # More images than the plan's profile takes at once.
        for result, logits in zip(model(images), expected, strict=True):
            np.testing.assert_allclose(result.logits, logits, atol=1e-6)
        assert [r.best for r in model.stream(images)] == [r.best for r in model(images)]
        used, *others = model.explain().splitlines()
    assert used == "used: rtx:sm86 plan (tensorrt_rtx 1.7.1.116), by tensorrt_rtx on cuda:0"
    assert len(others) == 3
    assert others[-1].startswith("frames: preprocessed and decoded on the CPU")
    assert any("CPU twin" in line for line in others)
    assert any("rtx:sm120" in line and "not SM86" in line for line in others)


def test_a_plan_for_another_gpu_leaves_the_twin(tmp_path: Path) -> None:
    path = engine(tmp_path / "a.engine", SM120)
    with visionrt.load(path) as model:
        assert model.device == "cpu"
        assert model(plain(RED)).best == "red"
        assert "not used: rtx:sm120" in model.explain()
        assert "not SM86" in model.explain()
    with pytest.raises(MissingDependencyError, match="not SM86"):
        visionrt.load(path, device="cuda:0")


def test_a_plan_whose_header_contradicts_the_manifest_is_not_run(tmp_path: Path) -> None:
    members = {SM86.member: (SM86, plan_bytes(0b10000))}
    path = write_engine(tmp_path / "a.engine", mean_color_model(), MEAN_COLOR_RECIPE, plans=members)
    with visionrt.load(path) as model:
        assert model.device == "cpu"
        assert "not used: rtx:sm86" in model.explain()


def test_a_raw_plan_with_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "color.plan"
    path.write_bytes(plan_bytes(0b100))
    with visionrt.load(path, recipe=MEAN_COLOR_RECIPE) as model:
        assert model(plain(BLUE)).best == "blue"
        assert model.name == "color"
        assert model.explain().startswith("used: a TensorRT-RTX plan 1.7.1.116 for SM86")
