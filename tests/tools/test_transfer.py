"""Threshold transfer: a known squeeze of the scores is undone, and nothing else is changed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tiny_models import save

from trtconvert.choose import Choice
from trtconvert.convert import convert
from trtconvert.evidence import Evidence
from trtconvert.guess import RecipeFlags
from trtconvert.operating_point import keep_operating_point
from trtconvert.options import BuildOptions
from trtconvert.precision import TypedGraph
from trtconvert.progress import silent
from trtconvert.reverify import reverify
from trtconvert.transfer import (
    ENOUGH_BOXES,
    FLOOR,
    ScoredBoxes,
    choose_threshold,
    measure_transfer,
)
from visionrt.engine_file import EngineFile
from visionrt.metrics import BoxAgreement
from visionrt.recipe import Recipe
from visionrt.results import Detections
from visionrt.spec import PreprocessSpec

CELLS = 4
SIDE = 32
THRESHOLD = 0.5


def boxes(rng, count):
    """Boxes apart from each other, one per place of a row."""
    left = 20.0 * np.arange(count)
    return np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1).astype(np.float32)


def detections(xyxy, scores, class_id=None):
    order = np.argsort(-scores, kind="stable")
    ids = np.zeros(len(scores), np.int32) if class_id is None else class_id
    return Detections(
        image_hw=(10, 20 * max(len(xyxy), 1)),
        names=(),
        xyxy=xyxy[order],
        confidence=scores[order].astype(np.float32),
        class_id=ids[order],
    )


def above(found, threshold):
    return found[found.confidence > threshold]


def scored(change, *, images=20, count=12, seed=0, threshold=THRESHOLD):
    """Reference scores, uniform in 0…1, and a candidate that gives ``change`` of them."""
    rng = np.random.default_rng(seed)
    out = ScoredBoxes()
    for _ in range(images):
        xyxy, scores = boxes(rng, count), rng.random(count)
        candidate = detections(xyxy, np.clip(change(scores, rng), 0, 1))
        out.update(above(detections(xyxy, scores), threshold), above(candidate, FLOOR * threshold))
    return out


@pytest.mark.parametrize(
    "squeeze",
    [
        lambda s, _: s**2,
        lambda s, _: 0.6 * s,
        lambda s, _: np.sqrt(s),
        lambda s, _: 0.3 + 0.7 * s,
        lambda s, _: 1 / (1 + np.exp(-6 * (s - 0.7))),
    ],
    ids=["square", "shrink", "root", "lift", "sigmoid"],
)
def test_a_monotone_squeeze_is_inverted(squeeze):
    found = choose_threshold(scored(squeeze), THRESHOLD)
    assert found.f1_after == 1.0
    assert found.f1_before < 0.95
    # 240 uniform scores leave a gap of some 1/240 around the threshold.
    slope = (squeeze(0.52, None) - squeeze(0.48, None)) / 0.04
    assert found.transferred == pytest.approx(squeeze(THRESHOLD, None), abs=0.02 * slope)
    assert "standard errors" in found.reason


def test_equal_scores_change_nothing():
    found = choose_threshold(scored(lambda s, _: s), THRESHOLD)
    assert found.transferred == found.fp32 == THRESHOLD
    assert found.f1_before == found.f1_after == 1.0


def test_few_boxes_change_nothing():
    few = scored(lambda s, _: s**2, images=4)
    assert sum(few.references) < ENOUGH_BOXES
    found = choose_threshold(few, THRESHOLD)
    assert found.transferred == THRESHOLD
    assert "too few" in found.reason


def test_noise_is_not_followed():
    """Scores that only scatter have their best threshold near the old one: rarely is it moved."""
    moved = [
        choose_threshold(scored(lambda s, rng: s + rng.normal(0, 0.1, s.shape), seed=seed), 0.5)
        for seed in range(100)
    ]
    changed = [m for m in moved if m.transferred != THRESHOLD]
    assert len(changed) <= 10
    assert all(abs(m.transferred - THRESHOLD) < 0.15 for m in changed)


def test_nothing_at_all():
    empty = ScoredBoxes()
    assert choose_threshold(empty, 0.25).transferred == 0.25
    empty.update(*[detections(np.zeros((0, 4), np.float32), np.zeros(0))] * 2)
    assert choose_threshold(empty, 0.25).f1_after == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_one_pass_gives_the_f1_of_every_threshold(seed):
    """Against the agreement of boxes that were cut at the threshold first; boxes may overlap."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(4):
        corner = rng.uniform(0, 20, (15, 2))
        xyxy = np.concatenate([corner, corner + rng.uniform(5, 15, (15, 2))], axis=1)
        reference = detections(
            xyxy.astype(np.float32), rng.random(15), rng.integers(0, 2, 15).astype(np.int32)
        )
        moved = (xyxy + rng.normal(0, 1.5, xyxy.shape)).astype(np.float32)
        scores = np.round(rng.random(15), 1)
        pairs.append((reference, detections(moved, scores, rng.integers(0, 2, 15, np.int32))))
    every = ScoredBoxes()
    for reference, candidate in pairs:
        every.update(above(reference, 0.4), candidate)
    f1 = every.whole().f1_by_kept()
    best = []
    for threshold in (0.0, 0.25, 0.5, 0.55, 0.95, 1.0):
        agreement = BoxAgreement()
        for reference, candidate in pairs:
            agreement.update(above(reference, 0.4), above(candidate, threshold))
        expected = agreement.agreement().agreement
        assert f1[every.whole().kept(threshold)] == pytest.approx(expected)
        best.append(expected)
    chosen = every.whole().best(0.4)
    assert f1[every.whole().kept(chosen)] >= max(best) - 1e-9


# On graphs


def cell_detector(squeeze: float = 1.0) -> onnx.ModelProto:
    """A box per cell of an image, its score the mean of the cell's first channel, to a power."""
    cell = SIDE // CELLS
    nodes = [
        helper.make_node("Slice", ["image", "zero", "one", "axis"], ["first"]),
        helper.make_node(
            "AveragePool", ["first"], ["means"], kernel_shape=[cell, cell], strides=[cell, cell]
        ),
        helper.make_node("Reshape", ["means", "shape"], ["flat"]),
        helper.make_node("Pow", ["flat", "power"], ["scores"]),
        helper.make_node("Mul", ["flat", "zeros"], ["codes"]),
    ]
    count = CELLS * CELLS
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "axis": np.array([1]),
        "shape": np.array([1, count, 1]),
        "power": np.array(squeeze, np.float32),
        "zeros": np.zeros((1, 1, 4), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "cells",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("codes", TensorProto.FLOAT, [1, count, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, count, 1]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def anchors():
    middles = (np.arange(CELLS) + 0.5) / CELLS
    return [[float(y), float(x), 0.2, 0.2] for y in middles for x in middles]


RECIPE = Recipe(
    "detect",
    "ssd",
    PreprocessSpec(resize="stretch", size=(SIDE, SIDE)),
    ("cell",),
    confidence=THRESHOLD,
    head_options={"anchors": anchors(), "background": -1, "activation": "none"},
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of 16 cells of one random colour each."""
    folder = tmp_path_factory.mktemp("cells")
    rng = np.random.default_rng(0)
    for index in range(16):
        cells = rng.integers(0, 256, (CELLS, CELLS, 3), dtype=np.uint8)
        pixels = cells.repeat(SIDE // CELLS, axis=0).repeat(SIDE // CELLS, axis=1)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    (folder / "zz.png").write_bytes(b"not a picture")
    return folder


def typed(precision: str, twin_precision: str, squeeze: float) -> TypedGraph:
    graph = cell_detector(squeeze)
    return TypedGraph(precision, graph, graph, twin_precision, ())


def test_graphs_are_run_down_to_low_scores(pictures):
    reference, squeezed = (cell_detector(p).SerializeToString() for p in (1.0, 2.0))
    files = sorted(pictures.iterdir())
    found = measure_transfer(reference, squeezed, RECIPE, files)
    assert found.transferred == pytest.approx(THRESHOLD**2, abs=0.01)
    assert found.f1_after == 1.0
    same = measure_transfer(reference, reference, RECIPE, files)
    assert same.transferred == THRESHOLD


def operating_point(pictures, typed_graph, **options):
    evidence = Evidence(
        cell_detector().SerializeToString(), RECIPE, tuple(sorted(pictures.iterdir()))
    )
    before = evidence.compare(typed_graph.measured, silent)
    made = BuildOptions(Path("m.onnx"), Path("x.engine"), **options)
    return before, keep_operating_point(typed_graph, before, evidence, made, silent)


def test_the_recipe_and_the_agreement_follow(pictures):
    before, (recipe, after, transfer) = operating_point(pictures, typed("int8", "int8", 2.0))
    assert before.agreement < 0.9
    assert after.agreement == 1.0
    assert after.details["twin_agreement"] == 1.0
    assert recipe == dataclasses.replace(RECIPE, confidence=transfer.transferred)
    assert any("zz.png" in warning for warning in after.warnings)


@pytest.mark.parametrize(
    ("precision", "twin", "options"),
    [
        # The twin is the float32 model, and shares the recipe.
        ("fp16", "fp32", {}),
        ("int8", "fp32", {}),
        ("int8", "int8", {"keep_threshold": True}),
    ],
)
def test_the_threshold_stays_where_it_must_fit_float32_or_is_kept(
    pictures, precision, twin, options
):
    graph = typed(precision, twin, 2.0)
    before, (recipe, after, transfer) = operating_point(pictures, graph, **options)
    assert transfer is None
    assert (recipe, after) == (RECIPE, before)


def test_the_engine_file_holds_both_thresholds(pictures, tmp_path, monkeypatch):
    """int8 changes these scores by nothing, so a squeezed graph stands in for the typed one."""
    graph = typed("int8", "int8", 2.0)
    monkeypatch.setattr(
        "trtconvert.convert.choose_precision",
        lambda _, evidence, *__: Choice(graph, evidence.compare(graph.measured, silent)),
    )
    model = save(cell_detector(), tmp_path / "cells.onnx")
    flags = RecipeFlags(
        task="detect",
        head="ssd",
        preprocess='{"resize": "stretch", "size": [32, 32]}',
        confidence=THRESHOLD,
        head_options=RECIPE.head_options,
    )
    report = convert(
        BuildOptions(
            model, tmp_path / "x.engine", precision="fp32", targets=("cpu",), recipe=flags,
            images=pictures,
        )
    )  # fmt: skip
    assert report.confidence["fp32"] == THRESHOLD
    assert report.verification["agreement"] == 1.0
    assert report.to_json()["confidence"]["transferred"] == report.recipe.confidence
    with EngineFile(tmp_path / "x.engine") as file:
        assert file.manifest.recipe.confidence == pytest.approx(THRESHOLD**2, abs=0.01)
    again = reverify(tmp_path / "x.engine", model, pictures)
    assert {name: a.agreement for name, a in again.agreements.items()} == {
        "typed": 1.0,
        "twin": 1.0,
    }
