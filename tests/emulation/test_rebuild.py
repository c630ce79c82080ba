"""A file without a plan for this GPU: the plan is built from the typed graph, and kept.

TensorRT-RTX's real builder builds it; the fake GPU (an SM86) and the double of its runtime run it.
Each test names a function below it, which runs in processes of its own; see fake_gpu.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import device_engines
import numpy as np
import pytest
from fake_gpu import FakeGpu
from real_models import MEAN_COLOR_RECIPE, mean_color_model, plain, write_engine

import visionrt
from visionrt import rebuilding
from visionrt.engine_file import EngineFile
from visionrt.errors import BuildError, EngineFileError, MissingDependencyError
from visionrt.manifest import PlanInfo
from visionrt.plan_header import describe

SM89 = PlanInfo("plans/rtx-sm89.plan", "tensorrt_rtx", "rtx:sm89", "1.7.1.116", ("89",), 1.0)
IMAGE = plain((0, 255, 0))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    plans = {SM89.member: (SM89, b"not read")}
    path = tmp_path / "color.engine"
    return write_engine(path, mean_color_model(), MEAN_COLOR_RECIPE, typed=True, plans=plans)


@contextlib.contextmanager
def loaded(engine: str, cache: Path, **options: Any) -> Any:
    os.environ["VISIONRT_CACHE"] = str(cache)
    session = device_engines.Session(mean_color_model())
    with device_engines.plans_run(session), visionrt.load(engine, **options) as model:
        yield model


def entries(cache: Path) -> list[Path]:
    """The plans that are kept. The kernels that the double compiles for them lie beside them."""
    assert not [path for path in cache.iterdir() if path.suffix != ".cached"]
    return [path for path in cache.iterdir() if path.read_bytes().startswith(b'{"header": {"plan"')]


def test_a_plan_is_rebuilt_once(fake_gpu: FakeGpu, engine: Path, emulated_kernels: Path) -> None:
    fake_gpu.run(rebuilt_once, str(engine), kernels=emulated_kernels)


def rebuilt_once(engine: str) -> None:
    cache = Path(engine).parent / "cache"
    with visionrt.load(engine, device="cpu") as cpu:
        wanted = cpu(IMAGE).logits
    with loaded(engine, cache) as model:
        assert model.device == "cuda:0"
        np.testing.assert_array_equal(model(IMAGE).logits, wanted)
        used, how, *_, skipped, _ = model.explain().splitlines()
    assert used == "used: plan rebuilt by tensorrt_rtx for SM86, by tensorrt_rtx on cuda:0"
    assert how.startswith("rebuilt: from typed.onnx in ")
    assert how.endswith(f"kept in {cache}")
    assert "rtx:sm89" in skipped
    assert "not SM86" in skipped
    (entry,) = entries(cache)
    plan = entry.read_bytes().split(b"\n", 1)[1]
    assert describe(plan).compute_capabilities == ("86",)  # the real builder's

    real, rebuilding._build = rebuilding._build, _must_not_build
    with loaded(engine, cache, device="cuda:0") as model:
        assert f"rebuilt: earlier, kept in {cache}" in model.explain()
        np.testing.assert_array_equal(model(IMAGE).logits, wanted)
    rebuilding._build = real
    # Damage costs a build, not the model.
    entry.write_bytes(entry.read_bytes()[:-1])
    with loaded(engine, cache, device="cuda:0") as model:
        assert "rebuilt: from typed.onnx" in model.explain()
    assert entry.read_bytes().endswith(plan)


def _must_not_build(*_: Any) -> Any:
    pytest.fail("built again")


def test_what_a_key_depends_on(fake_gpu: FakeGpu, engine: Path) -> None:
    fake_gpu.run(key_parts, str(engine))


def key_parts(engine: str) -> None:
    import dataclasses

    from visionrt.device import gpu_info

    gpu = gpu_info(0)
    with EngineFile(engine) as file:
        manifest = file.manifest
        assert rebuilding.shape_limits(manifest) == {
            "image": ((1, 3, 8, 8), (1, 3, 8, 8), (8, 3, 8, 8))
        }
        limits = ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
        other = dataclasses.replace(manifest, shapes={"image": limits})
        assert rebuilding.shape_limits(other) == {"image": limits}
        members = {k: dataclasses.replace(v, sha256="0") for k, v in manifest.members.items()}
        keys = [
            rebuilding.cache_key(manifest, "tensorrt_rtx", "1.7", gpu),
            rebuilding.cache_key(manifest, "tensorrt", "1.7", gpu),
            rebuilding.cache_key(manifest, "tensorrt_rtx", "1.8", gpu),
            rebuilding.cache_key(other, "tensorrt_rtx", "1.7", gpu),
            rebuilding.cache_key(
                dataclasses.replace(manifest, members=members), "tensorrt_rtx", "1.7", gpu
            ),
        ]
        for change in ({"name": "B"}, {"compute_capability": "89"}, {"driver_version": "14.0"}):
            changed = dataclasses.replace(gpu, **change)
            keys.append(rebuilding.cache_key(manifest, "tensorrt_rtx", "1.7", changed))
        assert len(set(keys)) == len(keys)


def test_which_gpu_the_builder_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(library: str, index: int) -> str:
        return rebuilding._environment_for(library, index)["CUDA_VISIBLE_DEVICES"]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert (seen("tensorrt", 0), seen("tensorrt", 2), seen("tensorrt_rtx", 2)) == ("0", "2", "-1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-8932f937")
    assert (seen("tensorrt", 0), seen("tensorrt", 1)) == ("3", "GPU-8932f937")


def test_a_cache_that_cannot_be_written(fake_gpu: FakeGpu, engine: Path) -> None:
    fake_gpu.run(unwritable, str(engine))


def unwritable(engine: str) -> None:
    in_the_way = Path(engine).parent / "file"
    in_the_way.write_bytes(b"")
    for _ in range(2):
        with loaded(engine, in_the_way / "cache") as model:
            assert model.device == "cuda:0"
            assert "not kept (" in model.explain()
            assert "Not a directory" in model.explain()


def test_what_falls_back_to_the_twin(fake_gpu: FakeGpu, engine: Path) -> None:
    fake_gpu.run(falls_back, str(engine))


def falls_back(engine: str) -> None:
    cache = Path(engine).parent / "cache"
    with loaded(engine, cache, rebuild=False) as model:
        assert model.device == "cpu"
        assert "not used: a rebuilt plan: rebuild=False" in model.explain()
    with pytest.raises(MissingDependencyError, match=r"not SM86.*rebuild=False"):
        visionrt.load(engine, device="cuda:0", rebuild=False)
    assert not cache.exists()

    untyped = write_engine(
        Path(engine).with_name("b.engine"), mean_color_model(), MEAN_COLOR_RECIPE
    )
    with loaded(str(untyped), cache) as model:
        assert "a rebuilt plan: the file holds no typed graph" in model.explain()

    real = rebuilding._BUILDER
    crashes = "import os, sys; sys.stderr.write('segment\\n'); sys.stderr.flush(); os.abort()"
    refuses = (
        "import json, sys; print(json.dumps({'error': 'ModelError', 'expected': 'a graph', "
        "'got': 'an odd node', 'fix': 'Cut it.'}))"
    )
    cut_off = 'print(\'{"library_version": "1.7", "plan_bytes": 9}\')'
    for code, reason in (
        (crashes, "signal SIGABRT: segment"),
        (refuses, "an odd node"),
        (cut_off, "0 bytes"),
        ("print('hello from sitecustomize')", "hello from"),
    ):
        rebuilding._BUILDER = code
        with loaded(engine, cache) as model:
            assert model.device == "cpu"
            assert model(IMAGE).best == "green"
            assert "not used: plan rebuilt by tensorrt_rtx for SM86: " in model.explain()
            assert reason in model.explain()
        assert entries(cache) == []  # nothing half made, no lock
    rebuilding._BUILDER = crashes
    with pytest.raises(BuildError, match=r"not SM86.*SIGABRT"):
        visionrt.load(engine, device="cuda:0")
    rebuilding._BUILDER = real


def test_a_kept_plan_that_is_refused_is_built_again(fake_gpu: FakeGpu, engine: Path) -> None:
    fake_gpu.run(refused, str(engine))


def refused(engine: str) -> None:
    from visionrt.backends import tensorrt as backend

    cache = Path(engine).parent / "cache"
    with loaded(engine, cache):
        pass
    opened, opens = backend.open_plan, 0

    def refuse(*arguments: Any, **options: Any) -> Any:
        nonlocal opens
        opens += 1
        if opens == 1:
            raise EngineFileError("a plan", got="one that it does not load", fix="Build it.")
        return opened(*arguments, **options)

    backend.open_plan = refuse
    with loaded(engine, cache) as model:
        assert model.device == "cuda:0"
        assert "rebuilt: from typed.onnx" in model.explain()
    assert (opens, len(entries(cache))) == (2, 1)
    backend.open_plan = opened


_LOADS = """
import sys, test_rebuild
from pathlib import Path
print("loads", flush=True)
with test_rebuild.loaded(sys.argv[1], Path(sys.argv[2]), device="cuda:0") as model:
    print(model.explain().splitlines()[1], flush=True)
"""


def start(fake_gpu: FakeGpu, engine: Path, cache: Path) -> subprocess.Popen[str]:
    environment = fake_gpu.environment()
    command = [sys.executable, "-c", _LOADS, str(engine), str(cache)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_build_one_plan(fake_gpu: FakeGpu, engine: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    processes = [start(fake_gpu, engine, cache) for _ in range(2)]
    notes = [process.communicate(timeout=100)[0].splitlines()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(note.split(",")[0].split(" in ")[0] for note in notes) == [
        "rebuilt: earlier",
        "rebuilt: from typed.onnx",
    ]
    assert len(entries(cache)) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_nothing(
    fake_gpu: FakeGpu, engine: Path, tmp_path: Path, how: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    process = start(fake_gpu, engine, cache)
    builder = wait_for_child(process.pid)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    deadline = time.monotonic() + 20
    while Path(f"/proc/{builder}").exists() and is_running(builder):
        assert time.monotonic() < deadline, "the builder outlived what started it"
        time.sleep(0.02)
    left = [path.suffix for path in cache.iterdir()]
    # A killed process cannot tidy up, but the lock on the file died with it.
    assert left == ([] if how == signal.SIGINT else [".lock"])
    again = start(fake_gpu, engine, cache)
    assert "rebuilt: from typed.onnx" in again.communicate(timeout=100)[0]
    assert len(entries(cache)) == 1


def wait_for_child(pid: int) -> int:
    """The builder's process, once it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                command = Path(f"/proc/{child}/cmdline")
                if b"targets.rebuild" in command.read_bytes():
                    return int(child)
        time.sleep(0.01)
    raise AssertionError("no builder was started")


def is_running(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    return False


def test_the_file_says_for_which_shapes(engine: Path) -> None:
    with EngineFile(engine) as file:
        stored = json.loads(json.dumps(file.manifest.to_json()))
        assert stored["shapes"] == {}
        stored["shapes"] = {"image": [[1, 3, 8, 8], [1, 3, 8, 8], [2, 3, 8, 8]]}
        manifest = type(file.manifest).from_json(stored, where="here")
        assert rebuilding.shape_limits(manifest)["image"][2] == (2, 3, 8, 8)
        stored["shapes"] = {"image": [[1, 3, 8, 8]]}
        with pytest.raises(EngineFileError, match="complete manifest"):
            type(file.manifest).from_json(stored, where="here")
