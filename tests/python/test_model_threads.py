"""Calls from many threads, futures and streams."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from real_models import ASTRONAUT, BLUE, CHELSEA, COFFEE, GREEN, RED, ROCKET, plain, real

from visionrt import image_io
from visionrt.errors import InputDataError, UsageError, VisionrtError
from visionrt.model import Model
from visionrt.streaming import ordered_results

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


@pytest.mark.parametrize("goes_on", [True, False], ids=["read on", "dropped"])
def test_a_stream_whose_workers_are_gone_ends(goes_on: bool) -> None:
    executor = ThreadPoolExecutor(1)

    def work(index: int) -> int:
        time.sleep(0.02)
        return index

    stream: Any = ordered_results(
        lambda index: executor.submit(work, index), range(100), lookahead=6, errors="raise"
    )
    assert next(stream) == 0
    executor.shutdown(cancel_futures=True)
    ended = threading.Event()

    def finish() -> None:
        if goes_on:
            with pytest.raises(UsageError, match="closed during the stream"):
                list(stream)
        else:
            stream.close()
        ended.set()

    threading.Thread(target=finish, daemon=True).start()
    assert ended.wait(10), "the stream waits for frames that nobody works on"


def test_a_source_s_error_holds_nothing_after_it_was_raised(color_model: Model) -> None:
    class SourceError(ValueError):
        pass

    def frames() -> Iterator[Any]:
        yield plain(RED)
        raise SourceError

    stream = color_model.stream(frames())
    next(stream)
    gc.disable()
    try:
        with pytest.raises(SourceError) as caught:
            next(stream)
        held = weakref.ref(caught.value)
        del caught, stream
        assert held() is None
    finally:
        gc.enable()


def test_stream_arguments_are_checked_at_the_call(color_model: Model) -> None:
    with pytest.raises(UsageError, match="lookahead"):
        color_model.stream([], lookahead=0)
    with pytest.raises(UsageError, match="errors"):
        color_model.stream([], errors="ignore")  # type: ignore[call-overload]
    assert list(color_model.stream([])) == []
    with pytest.raises(UsageError, match="top_k"):
        next(color_model.stream([plain(RED)], top_k=0))
