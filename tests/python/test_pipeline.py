"""The pipeline on a model whose answers are known exactly: what goes in, and what comes out."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_models import (
    ASTRONAUT,
    BLUE,
    CHELSEA,
    COFFEE,
    GREEN,
    MEAN_COLOR_RECIPE,
    RECIPES,
    RED,
    mean_color_model,
    model_path,
    plain,
)

from visionrt.backends import open_twin
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError, UsageError
from visionrt.model import Model

# What goes in


def test_color_orders_and_kinds_of_input(color_model: Model, tmp_path: Path) -> None:
    Image.new("RGB", (9, 6), "red").save(tmp_path / "red.png")
    data = (tmp_path / "red.png").read_bytes()
    red_rgb = np.ascontiguousarray(plain(RED)[..., ::-1])
    with Image.open(tmp_path / "red.png") as picture:
        for color in ("bgr", "rgb"):
            array = plain(RED) if color == "bgr" else red_rgb
            for source in (tmp_path / "red.png", str(tmp_path / "red.png"), data, picture, array):
                result = color_model(source, color=color)
                assert result.best == "red"
                np.testing.assert_allclose(result.logits, [1, 0, 0], atol=1e-6)
    assert color_model(plain(BLUE)).best == "blue"
    assert color_model(plain(BLUE), color="rgb").best == "red"
    assert color_model(plain(GREEN)[..., 1]).logits.tolist() == pytest.approx([1, 1, 1])


def test_one_array_takes_a_shorter_way_to_the_same_result(color_model: Model) -> None:
    rng = np.random.default_rng(5)
    wide = rng.integers(0, 256, (9, 14, 4), np.uint8)
    images = [
        *(wide[..., :3].copy(), wide[:, 2:9, :3], wide[::-1, :, :3], wide, wide[..., 0]),
        *(np.asfortranarray(wide[..., :3]), wide[:1, :1, :3].copy()),
    ]
    for color in ("bgr", "rgb"):
        for image in images:
            one = color_model(image, color=color)
            (same,) = color_model([image], color=color)
            np.testing.assert_array_equal(one.logits, same.logits)
            assert (one.image_hw, one.source) == (same.image_hw, same.source)
            assert list(one.speed) == list(same.speed) == ["preprocess", "inference", "postprocess"]
            assert all(ms >= 0 for ms in one.speed.values())
    with pytest.raises(UsageError, match="bgr or rgb"):
        color_model(images[0], color="gbr")
    with pytest.raises(InputDataError, match="float64"):
        color_model(images[0] / 2)


def test_a_list_gives_a_list(color_model: Model) -> None:
    assert color_model([]) == []
    assert color_model(()) == []
    (one,) = color_model([plain(RED)])
    assert one.best == "red"
    colors = [RED, GREEN, BLUE] * 7
    sizes = itertools.cycle([(1, 1), (6, 9), (40, 3)])
    images = [plain(c, *size) for c, size in zip(colors, sizes, strict=False)]
    results = color_model(images)
    assert [r.best for r in results] == ["red", "green", "blue"] * 7
    assert [r.image_hw for r in results] == [i.shape[:2] for i in images]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_fixed_batch_is_filled_and_cut(batch: int) -> None:
    with Model(MEAN_COLOR_RECIPE, OnnxRuntimeBackend(mean_color_model(batch))) as model:
        assert model(plain(GREEN)).best == "green"
        results = model([plain(c) for c in (RED, GREEN, BLUE, RED, BLUE, GREEN)])
        assert [r.best for r in results] == ["red", "green", "blue", "red", "blue", "green"]


def test_one_bad_image_of_a_list_is_an_error(color_model: Model, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(InputDataError, match=r"text\.png"):
        color_model([plain(RED), tmp_path / "text.png"])
    assert color_model(plain(RED)).best == "red"


def test_bad_options_and_colors(color_model: Model) -> None:
    with pytest.raises(UsageError, match="top_k"):
        color_model(plain(RED), top_k=0)
    with pytest.raises(UsageError, match="bgr or rgb"):
        color_model(plain(RED), color="xyz")
    with pytest.raises(TypeError, match="confidance"):
        color_model(plain(RED), confidance=0.5)
    assert len(color_model(plain(RED), top_k=2)) == 2


# What comes out


def test_speed_has_the_stages_and_adds_up(color_model: Model) -> None:
    start = time.perf_counter()
    results = color_model([plain(RED)] * 5)
    took = (time.perf_counter() - start) * 1e3
    assert list(results[0].speed) == ["preprocess", "inference", "postprocess"]
    assert 0 < sum(sum(r.speed.values()) for r in results) <= took
    assert next(iter(color_model(CHELSEA).speed)) == "decode"


def test_results_keep_a_reference_and_no_copy(color_model: Model) -> None:
    image = plain(RED, 60, 80)
    result = color_model(image)
    assert result.source is not None
    assert result.source.source is image
    assert result.plot().shape == image.shape


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", list(RECIPES))
def test_results_do_not_change_when_the_model_is_called_again(name: str, backend: str) -> None:
    """The engine's outputs are overwritten by the next call, so a result must own its arrays."""
    pytest.importorskip(backend)
    with Model(RECIPES[name], open_twin(model_path(name), backend=backend)) as model:
        first = model(ASTRONAUT)
        arrays = {k: v for k, v in vars(first).items() if isinstance(v, np.ndarray)}
        kept = {k: v.copy() for k, v in arrays.items()}
        for _ in range(2):
            model(COFFEE)
        assert arrays
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, kept[key])


def test_a_run_of_the_same_size_reuses_the_engine_s_memory(color_model: Model) -> None:
    color_model(plain(RED))
    (lane,) = color_model._pipeline._lanes._idle
    (run,) = lane.runs.values()
    assert run()["logits"] is run()["logits"]
