"""The engine alone against the libraries it is chosen from, and calls from two threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bench_preprocess import frame
from harness import OURS, Case, optional
from visionrt.backends import open_twin
from visionrt.cpu_settings import CpuSettings, usable_cores
from visionrt.model import Model
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec
from visionrt.tuning import tune

MODELS = Path(__file__).resolve().parents[1] / "tests" / "data" / "models"
_CALLS = 12
_RUNS = 5
# Until the threads of the engine before have stopped spinning.
_PAUSE_S = 0.1


def bound(path: Path, settings: CpuSettings) -> Callable[[], object]:
    """Some runs on zeros of an engine with these settings."""
    backend = open_twin(
        path, backend=settings.backend, threads=settings.threads, streams=settings.streams
    )
    (info,) = backend.inputs
    tensor = np.zeros([size if isinstance(size, int) else 1 for size in info.shape], info.dtype)
    run: Callable[[], object] = backend.bind(info.name, tensor)  # type: ignore[attr-defined]
    return lambda: [run() for _ in range(_RUNS)]


def engine_case(path: Path) -> Case:
    """What tuning chose, against each library with all cores."""
    choice = tune(path.read_bytes())
    peers = {"onnxruntime": bound(path, CpuSettings("onnxruntime", usable_cores()))}
    if optional("openvino") is not None:
        peers["openvino"] = bound(path, CpuSettings("openvino", usable_cores()))
    return Case(
        f"{_RUNS} runs of {path.stem}",
        {OURS: bound(path, choice.call), **peers},
        rounds=20,
        targets=dict.fromkeys(peers, 1.0),
        pause_s=_PAUSE_S,
        detail=f"{choice.call.backend}, {choice.call.threads} threads",
        why="ours is an engine of the same library and settings as one of the peers: two such "
        "engines lay their memory differently, and the better of two is at 1 × by definition",
        tried="a final of the settings that came near the best, in turn (visionrt tune)",
    )


def two_threads_case(backend: str) -> Case:
    """As many calls by one thread and by two, one engine thread each."""
    path = MODELS / "mobilenet_v2.onnx"
    recipe = Recipe("classify", "classifier", PreprocessSpec.parse("imagenet"))
    model = Model(recipe, open_twin(path, backend=backend, threads=1))
    photo = frame(375, 500)

    def calls(count: int) -> None:
        for _ in range(count):
            model(photo)

    def by_two() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(calls, [_CALLS // 2] * 2))

    return Case(
        f"{_CALLS} calls from 2 threads, mobilenet_v2, {backend}",
        {OURS: by_two, "1 thread": lambda: calls(_CALLS)},
        rounds=8,
        targets={"1 thread": 1.8},
        why="two engine threads share the caches and the memory of one",
        tried="a lane of memory and a bound run for each thread, and no lock held in a call",
    )


def cases() -> list[Case]:
    """Every case of this stage; on all cores."""
    backends = ["onnxruntime", *(["openvino"] if optional("openvino") is not None else [])]
    return [
        *(engine_case(path) for path in sorted(MODELS.glob("*.onnx"))),
        *(two_threads_case(backend) for backend in backends),
    ]
