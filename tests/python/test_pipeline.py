"""The pipeline on real models and on one whose answers are known exactly."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from real_models import (
    ASTRONAUT,
    CHELSEA,
    COFFEE,
    MEAN_COLOR_RECIPE,
    RECIPES,
    ROCKET,
    mean_color_model,
    model_path,
    plain,
)

from visionrt import image_io
from visionrt.backends import open_twin
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import InputDataError, ModelError, UsageError, VisionrtError
from visionrt.model import Model
from visionrt.results import Detections
from visionrt.spec import PreprocessSpec
from visionrt.streaming import ordered_results

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)


def real(name: str) -> Model:
    return Model(RECIPES[name], OnnxRuntimeBackend(model_path(name)), name=name)


@pytest.fixture
def color_model() -> Iterator[Model]:
    with Model(MEAN_COLOR_RECIPE, OnnxRuntimeBackend(mean_color_model())) as model:
        yield model


# Real models


@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v2"])
def test_classifiers_know_espresso_and_cats(name: str) -> None:
    with real(name) as model:
        coffee, cat = model([COFFEE, CHELSEA])
        assert coffee.best == "espresso"
        assert coffee.confidence[0] > 0.9
        assert "espresso 0.9" in str(coffee)
        assert any("cat" in cat.label(int(c)) for c in cat.class_id[:2])
        assert (np.diff(cat.confidence) <= 0).all()
        assert cat.logits.shape == (1000,)


def test_a_detector_finds_the_cup_the_cat_and_the_astronaut() -> None:
    with real("ssd_mobilenet_v2_coco") as model:
        coffee, cat, astronaut, rocket = model([COFFEE, CHELSEA, ASTRONAUT, ROCKET])
        assert next(row.name for row in coffee) == "cup"
        assert next(row.name for row in cat) == "cat"
        best = next(iter(astronaut))
        assert best.name == "person"
        # The astronaut's face lies in 180…271 x 58…176, so the person's box holds it.
        assert best.xyxy[0] < 180
        assert best.xyxy[1] < 58
        assert best.xyxy[2] > 271
        assert best.xyxy[3] > 176
        assert len(rocket) == 0
        assert set(coffee.class_id) == set(model(COFFEE, classes=None).class_id)
        assert [r.name for r in model(COFFEE, classes=["cup"])] == ["cup"]


def test_a_mask_covers_the_astronaut_and_leaves_the_wall() -> None:
    with real("selfie_segmentation") as model:
        result = model(ASTRONAUT)
        assert result.mask.shape == result.confidence.shape == (512, 512)
        assert result.mask[100:170, 200:250].mean() > 0.99
        assert result.mask[20:200, 330:380].mean() < 0.01
        assert result.confidence[100:170, 200:250].min() > 0.5


def test_a_pose_has_its_nose_where_the_nose_is() -> None:
    with real("movenet_lightning") as model:
        result = model(ASTRONAUT)
        nose = result.keypoints[0, 0]
        assert np.abs(nose[:2] - (221, 121)).max() < 12
        assert nose[2] > 0.4
        assert result.names[0] == "nose"


def test_the_logits_are_the_engines_for_a_tensor_made_by_hand() -> None:
    """The path from photo to logits, against Pillow and NumPy doing the same."""
    with Image.open(COFFEE) as picture:
        width, height = picture.size
        short = round(224 / 0.875)
        scale = short / min(width, height)
        size = (max(short, int(width * scale)), max(short, int(height * scale)))
        resized = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
    crop = resized[top : top + 224, left : left + 224].astype(np.float64)
    tensor = ((crop - 127) / 128).transpose(2, 0, 1)[None].astype(np.float32)
    backend = OnnxRuntimeBackend(model_path("efficientnet_lite0"))
    expected = backend.run({"images": tensor})["logits"][0]
    with real("efficientnet_lite0") as model:
        logits = model(COFFEE).logits
    # Pixels may differ by one grey level at rounding borders; the logits span about 15.
    assert np.abs(logits - expected).max() < 0.05


@pytest.mark.parametrize("name", list(RECIPES))
def test_extreme_shapes_go_all_the_way(name: str) -> None:
    with real(name) as model:
        for shape in ((1, 1), (1, 20000), (20000, 1), (3, 2)):
            result = model(np.full((*shape, 3), 120, np.uint8), confidence=0.01)
            assert result.image_hw == shape
            json.dumps(result.to_json(), allow_nan=False)
            assert result.plot().shape == (*shape, 3)
            if isinstance(result, Detections) and len(result):
                assert result.xyxy.min() >= 0
                assert (result.xyxy.max(axis=0) <= [shape[1], shape[0]] * 2).all()


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


# Threads


def test_many_threads_get_the_serial_results() -> None:
    images = [image_io.decode(p) for p in (COFFEE, CHELSEA, ASTRONAUT, ROCKET)]
    with real("ssd_mobilenet_v2_coco") as model:
        expected = [model(image) for image in images]
        with ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(model, images[i % 4]) for i in range(32)]
            for i, future in enumerate(futures):
                result = future.result()
                np.testing.assert_array_equal(result.xyxy, expected[i % 4].xyxy)
                np.testing.assert_array_equal(result.confidence, expected[i % 4].confidence)
                np.testing.assert_array_equal(result.class_id, expected[i % 4].class_id)


def test_threads_with_images_of_their_own_never_mix(color_model: Model) -> None:
    def hammer(color: tuple[int, int, int], name: str) -> int:
        return sum(color_model([plain(color)] * n)[-1].best == name for n in (1, 3, 8) * 60)

    with ThreadPoolExecutor(3) as pool:
        jobs = [(RED, "red"), (GREEN, "green"), (BLUE, "blue")]
        assert [f.result() for f in [pool.submit(hammer, *job) for job in jobs]] == [180] * 3


def test_submit_gives_futures(color_model: Model) -> None:
    futures = [color_model.submit(plain(c)) for c in (RED, GREEN, BLUE)]
    assert [f.result(timeout=30).best for f in futures] == ["red", "green", "blue"]
    with pytest.raises(InputDataError):
        color_model.submit("absent.png").result(timeout=30)
    with pytest.raises(UsageError):
        color_model.submit(plain(RED), top_k=0)


# Streams


def test_a_stream_keeps_the_order(color_model: Model) -> None:
    colors = [RED, GREEN, BLUE] * 20
    # Large frames take longer, so results would overtake each other.
    frames = (plain(c, *((700, 900) if i % 7 == 0 else (4, 4))) for i, c in enumerate(colors))
    names = [result.best for result in color_model.stream(frames, lookahead=8)]
    assert names == ["red", "green", "blue"] * 20


def test_a_stream_reads_no_further_than_it_may(color_model: Model) -> None:
    pulled = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal pulled
        while True:
            pulled += 1
            yield plain(RED)

    for consumed, _ in enumerate(color_model.stream(endless(), lookahead=3), start=1):
        assert pulled <= consumed + 3
        if consumed == 20:
            break
    assert color_model(plain(BLUE)).best == "blue"


def test_an_error_is_delivered_at_its_frame(color_model: Model) -> None:
    frames: list[Any] = [plain(RED), plain(GREEN), "absent.png", plain(BLUE)]
    stream = color_model.stream(frames)
    assert [next(stream).best, next(stream).best] == ["red", "green"]
    with pytest.raises(InputDataError, match="absent"):
        next(stream)
    assert list(stream) == []
    mixed = list(color_model.stream(frames, errors="return"))
    assert [isinstance(m, VisionrtError) for m in mixed] == [False, False, True, False]
    assert mixed[3].best == "blue"


def test_an_error_of_the_source_comes_after_the_frames_before_it(color_model: Model) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield plain(RED)
        yield plain(GREEN)
        raise RuntimeError("camera unplugged")

    stream = color_model.stream(broken())
    assert [next(stream).best, next(stream).best] == ["red", "green"]
    with pytest.raises(RuntimeError, match="unplugged"):
        next(stream)


def test_a_stream_that_is_dropped_stops_its_work() -> None:
    begun: list[int] = []

    def work(frame: int) -> int:
        begun.append(frame)
        time.sleep(0.01)
        return frame

    with ThreadPoolExecutor(1) as pool:
        stream = ordered_results(
            lambda frame: pool.submit(work, frame), itertools.count(), lookahead=50, errors="raise"
        )
        assert next(stream) == 0
        stream.close()  # type: ignore[attr-defined]
        count = len(begun)
        assert count < 10
        assert pool.submit(work, -1).result(timeout=30) == -1
    assert begun[count:] == [-1]


def test_stream_arguments_are_checked_at_the_call(color_model: Model) -> None:
    with pytest.raises(UsageError, match="lookahead"):
        color_model.stream([], lookahead=0)
    with pytest.raises(UsageError, match="errors"):
        color_model.stream([], errors="ignore")  # type: ignore[call-overload]
    assert list(color_model.stream([])) == []
    with pytest.raises(UsageError, match="top_k"):
        next(color_model.stream([plain(RED)], top_k=0))


# Life and death


def test_a_closed_model_refuses(color_model: Model) -> None:
    stream = color_model.stream([plain(RED)] * 9)
    assert next(stream).best == "red"
    color_model.close()
    color_model.close()
    with pytest.raises(UsageError, match="closed"):
        color_model(plain(RED))
    with pytest.raises(UsageError, match="closed"):
        color_model.submit(plain(RED))
    with pytest.raises(UsageError, match="closed"):
        list(stream)


def test_close_waits_for_calls_and_breaks_none() -> None:
    image = image_io.decode(COFFEE)
    model = real("mobilenet_v2")
    expected = model(image).logits
    outcomes: list[str] = []
    started = threading.Barrier(5)

    def hammer() -> None:
        started.wait()
        for _ in range(200):
            try:
                good = np.array_equal(model(image).logits, expected)
                outcomes.append("good" if good else "wrong")
            except UsageError:
                outcomes.append("closed")
                return

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    time.sleep(0.1)
    model.close()
    for thread in threads:
        thread.join(timeout=30)
    assert outcomes.count("closed") == 4
    assert "wrong" not in outcomes
    assert "good" in outcomes


def test_close_returns_when_nothing_runs_any_more() -> None:
    class Slow(OnnxRuntimeBackend):
        running = 0

        def bind(self, name: str, tensor: Any) -> Any:
            bound = super().bind(name, tensor)

            def run() -> Any:
                self.running += 1
                entered.set()
                time.sleep(0.2)
                try:
                    return bound()
                finally:
                    self.running -= 1

            return run

    entered = threading.Event()
    backend = Slow(mean_color_model())
    model = Model(MEAN_COLOR_RECIPE, backend)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(model, plain(GREEN))
        assert entered.wait(timeout=30)
        model.close()
        assert backend.running == 0
        assert future.result(timeout=30).best == "green"


def test_clones_share_the_engine_until_the_last_is_closed() -> None:
    first = Model(MEAN_COLOR_RECIPE, OnnxRuntimeBackend(mean_color_model()))
    second = first.clone()
    assert second.backend is first.backend
    first.close()
    assert second(plain(RED)).best == "red"
    second.close()
    with pytest.raises(UsageError, match="closed"):
        second.backend.run({})


def test_attributes_warmup_and_explain(color_model: Model) -> None:
    color_model.warmup()
    assert color_model.task == "classify"
    assert color_model.labels == ("red", "green", "blue")
    assert color_model.device == "cpu"
    assert color_model.explain() == "used: onnxruntime on cpu"
    assert "classify" in repr(color_model)


@pytest.mark.parametrize(
    "change",
    [{"size": [9, 8]}, {"layout": "nhwc"}, {"dtype": "float16"}, {"color": "gray"}],
    ids=str,
)
def test_a_recipe_that_does_not_fit_the_graph_is_refused(change: dict[str, Any]) -> None:
    spec = PreprocessSpec(resize="stretch", size=(8, 8)).replace(**change)
    recipe = type(MEAN_COLOR_RECIPE)("classify", "classifier", spec)
    with pytest.raises(ModelError, match="preprocess spec"):
        Model(recipe, OnnxRuntimeBackend(mean_color_model()))


def test_a_batch_is_no_larger_than_the_back_end_takes() -> None:
    class Counting(OnnxRuntimeBackend):
        max_batch = 2
        seen: list[int] = []  # noqa: RUF012  one instance

        def bind(self, name: str, tensor: Any) -> Any:
            bound = super().bind(name, tensor)

            def run() -> Any:
                self.seen.append(len(tensor))
                return bound()

            return run

    backend = Counting(mean_color_model())
    with Model(MEAN_COLOR_RECIPE, backend) as model:
        assert [r.best for r in model([plain(RED)] * 5)] == ["red"] * 5
    assert backend.seen == [2, 2, 1]
