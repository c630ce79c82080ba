"""Closing, cloning and refusing a model."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from real_models import COFFEE, GREEN, MEAN_COLOR_RECIPE, RED, mean_color_model, plain, real

from visionrt import image_io
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import ModelError, UsageError
from visionrt.model import Model
from visionrt.spec import PreprocessSpec


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
