"""Models whose answer is known: recognised, built for RTX, decoded by the twin and the GPU path."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_models import CASES, SIZE, Case, model_of
from detector_models import DETECTORS, NAMED
from onnx import ModelProto

from trtconvert.cli.main import main
from trtconvert.graph import tensor_info
from trtconvert.head_guess import LIKELY, Outputs, last_operators, separable_outputs
from trtconvert.head_rules import guess_head
from visionrt.engine_file import EngineFile
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

EMULATION = Path(__file__).parents[1] / "emulation"
sys.path[:0] = [str(EMULATION), str(EMULATION / "fake_cuda"), str(EMULATION.parent / "python")]

RECOGNISED = CASES | DETECTORS
ALL = RECOGNISED | NAMED

IMAGE = np.full((SIZE, SIZE, 3), 90, np.uint8)


def guessed(model: ModelProto) -> Any:
    infos = tuple(tensor_info(value) for value in model.graph.output)
    graph = model.graph
    return guess_head(Outputs(infos, (SIZE, SIZE), last_operators(graph), separable_outputs(graph)))


def told(found: Any, case: Case) -> dict[str, Any]:
    """The options of a case that its outputs tell; the user gives the others."""
    return {key: value for key, value in case.options.items() if key not in found.missing}


@pytest.mark.parametrize("name", RECOGNISED)
def test_recognised(name: str) -> None:
    case = ALL[name]
    found = guessed(model_of(case))
    assert (found.task, found.head) == (case.task, case.head)
    wanted = told(found, case)
    assert {key: found.options.get(key) for key in wanted} == wanted
    assert not found.missing.keys() & found.options.keys()
    assert found.reason
    is_shared = bool(found.ambiguous_with)
    assert found.confidence == LIKELY if is_shared else found.confidence >= LIKELY


def check(result: Any, case: Case) -> None:
    for field, wanted in case.answer.items():
        got = getattr(result, field)
        assert got.shape == np.shape(wanted), field
        # The constants are binary fractions; a softmax and the angle of pi / 2 are rounded.
        tolerance = 2e-6 if field in ("confidence", "xywhr", "xyxy", "keypoints") else 0
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=field)


FINDERS = [n for n, c in ALL.items() if c.task in ("detect", "instances", "obb", "keypoints")]


@pytest.mark.parametrize("name", FINDERS)
def test_an_image_without_objects(name: str) -> None:
    from head_calls import frame_of, infos

    from visionrt.heads import head_for
    from visionrt.options import options_for

    case = ALL[name]
    spec = PreprocessSpec(resize="stretch", size=(SIZE, SIZE))
    recipe = Recipe(case.task, case.head, spec, head_options=case.options)
    outputs = dict(case.outputs)
    for output in case.last:  # that the graph applies to them
        if case.last[output] == "Sigmoid":
            outputs[output] = 1 / (1 + np.exp(-outputs[output]))
    head = head_for(recipe, infos(outputs))
    (result,) = head.decode(outputs, [frame_of(recipe)], options_for(recipe, confidence=1.0))
    assert str(result)
    if case.head not in ("keypoints", "simcc", "heatmaps"):  # these place every point
        assert len(result) == 0


@pytest.mark.parametrize("name", ALL)
def test_built_and_decoded(name: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from fake_gpu import FakeGpu, UnavailableError, fake_driver, pycuda_site

    import visionrt
    from emulation import build
    from visionrt import _core

    case = ALL[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(model_of(case).SerializeToString())
    engine = tmp_path / "model.engine"
    arguments = [str(path), "-o", str(engine), "--preprocess", "none", "--precision", "fp32"]
    arguments += ["--target", "rtx:sm86", "--target", "cpu"]
    found = guessed(model_of(case))
    if name not in RECOGNISED or found.ambiguous_with:
        arguments += ["--task", case.task, "--head", case.head]
        arguments += ["--head-options", json.dumps(dict(case.options))]
    elif found.missing:
        arguments += ["--head-options", json.dumps({k: case.options[k] for k in found.missing})]
    with pytest.raises(SystemExit) as done:
        main(["build", *arguments])
    assert done.value.code == 0
    with EngineFile(engine) as file:
        assert [plan.target for plan in file.manifest.plans] == ["rtx:sm86"]
    with visionrt.load(engine, device="cpu") as model:
        check(model(IMAGE), case)
    if build.compiler() is None or not _core.has_kernels():
        pytest.skip("the emulated kernels cannot run here")
    try:
        gpu = FakeGpu(fake_driver(), pycuda_site())
    except UnavailableError as error:
        pytest.skip(f"the fake GPU cannot be built: {error}")
    gpu.run(on_the_gpu, name, str(engine), kernels=build.kernel_library(), fast=True)


def on_the_gpu(name: str, engine: str) -> None:
    from gpu_models import assert_same, both

    case = ALL[name]
    with EngineFile(Path(engine)) as file:
        recipe, model = file.manifest.recipe, bytes(file.read("model.onnx"))
    with both(model, recipe) as (gpu, cpu):
        for image in (IMAGE, IMAGE, IMAGE[:40], IMAGE[:, :30].copy()):
            got = gpu(image)
            assert_same(got, cpu(image))
            if image.shape == IMAGE.shape:
                check(got, case)
