"""What load makes of every kind of file, and how it chooses what runs it."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from real_models import (
    COFFEE,
    MEAN_COLOR_RECIPE,
    RECIPES,
    mean_color_model,
    model_path,
    plain,
    write_engine,
)

import visionrt
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import (
    EngineFileError,
    MissingDependencyError,
    ModelError,
    UsageError,
    VisionrtError,
)
from visionrt.loading import Candidate, first_usable
from visionrt.manifest import PlanInfo
from visionrt.ultralytics import recipe_from_metadata

RED = (0, 0, 255)
PLAN = PlanInfo("plans/rtx_sm86.plan", "tensorrt_rtx", "rtx:sm86", "1.7.1.116", ("86",), 1.0)
RTX_HEADER = struct.pack("<4s12xQBBBB4sI", b"vtrt", 64, 1, 7, 1, 116, b"vtrt", 1 << 2).ljust(
    64, b"\0"
)


def no_gpu() -> bool:
    from visionrt.device import gpu_problem

    return bool(gpu_problem(0))


needs_no_gpu = pytest.mark.skipif(not no_gpu(), reason="says what happens without a GPU")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    plans = {PLAN.member: (PLAN, RTX_HEADER)}
    return write_engine(
        tmp_path / "color.engine", mean_color_model(), MEAN_COLOR_RECIPE, plans=plans
    )


@pytest.fixture
def plan_only(tmp_path: Path) -> Path:
    plans = {PLAN.member: (PLAN, RTX_HEADER)}
    return write_engine(
        tmp_path / "gpu.engine", mean_color_model(), MEAN_COLOR_RECIPE, twin=False, plans=plans
    )


def test_the_three_lines(tmp_path: Path) -> None:
    path = write_engine(
        tmp_path / "a.engine",
        model_path("efficientnet_lite0").read_bytes(),
        RECIPES["efficientnet_lite0"],
    )
    text = str(visionrt.load(path)(str(COFFEE)))
    assert text.startswith("coffee.png 600x400: espresso 0.9")


@needs_no_gpu
def test_auto_takes_the_twin_and_says_why(engine: Path) -> None:
    with visionrt.load(engine) as model:
        assert model.device == "cpu"
        assert model.name == "color"
        assert model(plain(RED)).best == "red"
        used, settings, not_used = model.explain().splitlines()
    assert used == "used: CPU twin (fp32), by onnxruntime on cpu"
    assert settings.startswith("CPU settings: ")
    assert not_used.startswith("not used: rtx:sm86 plan (tensorrt_rtx 1.7.1.116): ")


def test_cpu_by_name_and_by_back_end(engine: Path) -> None:
    pytest.importorskip("openvino")
    for options in ({"device": "cpu"}, {"backend": "openvino"}, {"device": "cpu", "threads": 1}):
        with visionrt.load(engine, **options) as model:  # type: ignore[arg-type]
            assert model.device == "cpu"
            assert model.backend.name == options.get("backend", "onnxruntime")
            assert model(plain(RED)).best == "red"
            assert "the CPU was asked for" in model.explain()


@needs_no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_by_name_never_falls_back(engine: Path, plan_only: Path, device: str) -> None:
    for path in (engine, plan_only):
        with pytest.raises(MissingDependencyError, match="rtx:sm86") as caught:
            visionrt.load(path, device=device)
        assert caught.value.exit_code == 6


@needs_no_gpu
def test_a_file_without_a_twin_needs_its_gpu(plan_only: Path) -> None:
    with pytest.raises(MissingDependencyError, match="rtx:sm86"):
        visionrt.load(plan_only)
    with pytest.raises(EngineFileError, match="--target cpu"):
        visionrt.load(plan_only, device="cpu")


def test_a_file_without_plans_has_nothing_for_a_gpu(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "cpu.engine", mean_color_model(), MEAN_COLOR_RECIPE)
    with pytest.raises(EngineFileError, match="only a CPU twin"):
        visionrt.load(path, device="cuda:0")
    used, settings = visionrt.load(path).explain().splitlines()
    assert used == "used: CPU twin (fp32), by onnxruntime on cpu"
    assert settings.startswith("CPU settings: the default; nothing was timed")


def test_a_recipe_can_be_replaced(engine: Path) -> None:
    recipe = type(MEAN_COLOR_RECIPE)(
        "classify", "classifier", MEAN_COLOR_RECIPE.preprocess, ("rot", "gruen", "blau")
    )
    assert visionrt.load(engine, device="cpu", recipe=recipe)(plain(RED)).best == "rot"


def test_onnx_with_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "color.onnx"
    path.write_bytes(mean_color_model())
    with visionrt.load(path, recipe=MEAN_COLOR_RECIPE) as model:
        assert model(plain(RED)).best == "red"
        assert model.name == "color"
    with pytest.raises(UsageError, match="recipe"):
        visionrt.load(path)
    with pytest.raises(EngineFileError, match="trtconvert build"):
        visionrt.load(path, recipe=MEAN_COLOR_RECIPE, device="cuda:0")
    path.write_bytes(mean_color_model()[:-30])
    with pytest.raises(ModelError, match="graph"):
        visionrt.load(path, recipe=MEAN_COLOR_RECIPE)


def test_a_recipe_that_does_not_fit_is_refused(engine: Path) -> None:
    with pytest.raises(ModelError, match="preprocess spec"):
        visionrt.load(engine, device="cpu", recipe=RECIPES["mobilenet_v2"])
    recipe = type(MEAN_COLOR_RECIPE)("detect", "ssd", MEAN_COLOR_RECIPE.preprocess)
    with pytest.raises(UsageError, match="ssd"):
        visionrt.load(engine, device="cpu", recipe=recipe)


@pytest.mark.parametrize(
    "options",
    [
        {"device": "gpu"},
        {"device": "cuda:"},
        {"device": "cuda:0x"},
        {"device": "cpu", "backend": "tensorrt"},
        {"device": "cuda:0", "backend": "onnxruntime"},
        {"device": "cuda:0", "threads": 2},
        {"device": "cpu", "threads": 0},
    ],
    ids=str,
)
def test_bad_arguments(engine: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        visionrt.load(engine, **options)


def test_files_that_are_nothing(tmp_path: Path) -> None:
    for name, data in {
        "text.engine": b"hello",
        "empty.engine": b"",
        "cut.engine": b"PK\x03\x04",
        "noise.plan": bytes(range(256)),
        "picture.engine": COFFEE.read_bytes(),
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(EngineFileError) as caught:
            visionrt.load(tmp_path / name)
        assert name in str(caught.value)
    for path in (tmp_path / "absent.engine", tmp_path, Path("a\0b")):
        with pytest.raises(EngineFileError, match="readable engine file"):
            visionrt.load(path)
    (tmp_path / "renamed.engine").write_bytes(mean_color_model())
    with pytest.raises(VisionrtError, match=r"onnx"):
        visionrt.load(tmp_path / "renamed.engine", recipe=MEAN_COLOR_RECIPE)


def test_a_flipped_byte_of_the_twin_is_found(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    at = data.index(b"mean_color")
    data[at] ^= 1
    engine.write_bytes(bytes(data))
    with pytest.raises(EngineFileError, match=r"model\.onnx"):
        visionrt.load(engine, device="cpu")


@needs_no_gpu
def test_a_raw_plan_needs_a_recipe_and_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_bytes(RTX_HEADER)
    with pytest.raises(UsageError, match="recipe"):
        visionrt.load(path)
    with pytest.raises(EngineFileError, match="TensorRT-RTX"):
        visionrt.load(path, recipe=MEAN_COLOR_RECIPE, device="cpu")
    with pytest.raises(MissingDependencyError):
        visionrt.load(path, recipe=MEAN_COLOR_RECIPE)


METADATA = {
    "task": "detect",
    "imgsz": [480, 640],
    "names": {"0": "cat", "1": "dog"},
    "stride": 32,
    "batch": 1,
}


@needs_no_gpu
def test_an_ultralytics_engine_brings_its_recipe(tmp_path: Path) -> None:
    body = json.dumps(METADATA).encode()
    path = tmp_path / "yolo.engine"
    path.write_bytes(struct.pack("<I", len(body)) + body + RTX_HEADER)
    # That it gets as far as the missing GPU shows that a recipe was found.
    with pytest.raises(MissingDependencyError):
        visionrt.load(path)


def test_recipes_from_ultralytics_metadata() -> None:
    recipe = recipe_from_metadata(METADATA)
    assert (recipe.task, recipe.head, recipe.labels) == ("detect", "yolo", ("cat", "dog"))
    assert recipe.preprocess.size == (480, 640)
    assert recipe.preprocess.resize == "letterbox"
    classify = recipe_from_metadata({**METADATA, "task": "classify"})
    assert classify.head_options == {"activation": "none"}
    assert (classify.preprocess.resize, classify.preprocess.crop_ratio) == ("crop", 1)
    for final in ({"end2end": True}, {"args": {"nms": True}}):
        assert recipe_from_metadata({**METADATA, **final}).head == "end2end"
    for change in ({"task": "depth"}, {"task": None}):
        with pytest.raises(ModelError):
            recipe_from_metadata({**METADATA, **change})
    for change in ({"names": 3}, {"names": {"1": "x"}}, {"imgsz": [1]}, {"imgsz": None}):
        with pytest.raises((EngineFileError, UsageError)):
            recipe_from_metadata({**METADATA, **change})


def test_the_first_usable_candidate_wins_and_the_others_say_why() -> None:
    def missing() -> Any:
        raise MissingDependencyError("a driver", got="none", fix="Install it.")

    def twin() -> Any:
        return OnnxRuntimeBackend(mean_color_model())

    opened, notes = first_usable([Candidate("plan", missing), Candidate("twin", twin)])
    assert opened.name == "onnxruntime"
    assert notes == ["used: twin, by onnxruntime on cpu", "not used: plan: none"]
    with pytest.raises(MissingDependencyError, match="Install"):
        first_usable([Candidate("plan", missing)])
    with pytest.raises(MissingDependencyError, match=r"a: none; .*b: none"):
        first_usable([Candidate("a", missing), Candidate("b", missing)])


def test_the_library_of_the_twin_may_be_missing(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        visionrt.load(engine, device="cpu")


def test_the_public_names() -> None:
    for name in visionrt.__all__:
        assert hasattr(visionrt, name)
    assert set(visionrt.__all__) <= set(dir(visionrt))
    with pytest.raises(AttributeError, match="lode"):
        visionrt.lode  # noqa: B018
