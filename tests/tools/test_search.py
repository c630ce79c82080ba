"""Raising nodes: searches on graphs, and the images that are set apart for them."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper
from tiny_models import SIZE, save, save_pictures, tiny_classifier

from trtconvert.calibration.collect import with_outputs
from trtconvert.calibration.holdout import LEAST_IMAGES, split_for_tuning
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.reader import ImageReader
from trtconvert.convert import convert
from trtconvert.evidence import Evidence
from trtconvert.guess import RecipeFlags
from trtconvert.options import BuildOptions
from trtconvert.progress import silent
from trtconvert.search.half_noise import half_noise
from trtconvert.search.raising import Search
from trtconvert.typers import HalfTyper, Int8Typer
from trtconvert.verify import MaxDrop
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import AccuracyError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

TINY = Recipe(
    task="classify",
    head="classifier",
    preprocess=PreprocessSpec(resize="stretch", size=(SIZE, SIZE), mean=(0, 0, 0), std=(255,) * 3),
)


# Holding out


def test_images_are_set_apart_whatever_their_order(tmp_path):
    files = [tmp_path / f"{i:03}.png" for i in range(30)]
    ranging, tuning = split_for_tuning(files[::-1])
    assert (ranging, tuning) == split_for_tuning(files)
    assert (ranging, tuning) == split_for_tuning(files * 2)
    assert sorted(ranging + tuning) == files
    assert len(tuning) == 10
    few = files[: LEAST_IMAGES - 1]
    assert split_for_tuning(few) == (few, few)


# On graphs


def chain(count, *, overflow=None):
    """A tiny classifier with ``count`` nodes between its pool and its Gemm; one may overflow."""
    model = tiny_classifier()
    graph = model.graph
    tail = next(node for node in graph.node if node.name == "tail")
    nodes = []
    source = "flat"
    for index in range(count):
        factor = 1e6 if index == overflow else (1e-6 if index - 1 == overflow else 1.0)
        constant = f"factor{index}"
        graph.initializer.append(numpy_helper.from_array(np.float32(factor), constant))
        result = "last" if index == count - 1 else f"scaled{index}"
        # Each product is a Div by the reciprocal, whose constant float16 holds.
        op = ("Div", np.float32(1 / factor)) if factor > 1 else ("Mul", np.float32(factor))
        graph.initializer[-1].CopyFrom(numpy_helper.from_array(op[1], constant))
        nodes.append(
            onnx.helper.make_node(op[0], [source, constant], [result], name=f"scale{index}")
        )
        source = result
    kept = [node for node in graph.node if node is not tail]
    head = kept.pop()
    copies = []
    for node in (*kept, *nodes, head):
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
    return model


def evidence_on(model, pictures):
    return Evidence(model.SerializeToString(), TINY, sorted(pictures.iterdir()))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_pictures(tmp_path_factory.mktemp("search"), 6)


@pytest.mark.parametrize("overflow", [3, 40])
def test_a_planted_overflow_is_found_named_and_repaired(overflow, pictures):
    model = chain(48, overflow=overflow)
    evidence = evidence_on(model, pictures)
    search = Search(HalfTyper(model, TINY, None, silent), evidence, MaxDrop(0.01), silent)
    search.run()
    report = search.report()
    assert report.agreement_before == 0.0
    assert report.agreement_after == 1.0
    assert report.evaluations <= 2 * math.log2(report.suspects) + 8
    assert report.raised[0].node == f"scale{overflow}"
    assert report.raised[0].overflows
    assert report.raised[0].noise_db is None
    assert [r.node for r in report.raised[1:]] == [f"scale{overflow + 1}"]
    assert report.cost_after >= report.cost_before
    assert evidence.compare(search.typed.measured, silent).agreement == 1.0


def test_with_images_an_overflow_is_kept_float32_before_any_search(pictures):
    model = chain(8, overflow=3)
    typer = HalfTyper(model, TINY, CalibrationOptions(pictures), silent)
    search = Search(typer, evidence_on(model, pictures), MaxDrop(0.0), silent)
    search.run()
    assert not search.report().raised
    assert search.report().evaluations == 1


def test_int8_nodes_that_lose_the_answers_are_raised(pictures):
    # The sign of a score that is small beside the features it is summed from decides.
    model = tiny_classifier()
    features = with_outputs(model, ["last"]).SerializeToString()
    backend = OnnxRuntimeBackend(features)
    found = np.concatenate(
        [backend.run({"image": x})["last"] for x in ImageReader(pictures, TINY.preprocess)]
    )
    middle = found.mean(axis=0)
    direction = np.linalg.svd(found - middle)[2][0]
    direction -= middle * (direction @ middle) / (middle @ middle)
    fc = next(t for t in model.graph.initializer if t.name == "fc")
    rows = np.stack([0 * middle, direction, -middle, -middle]).astype(np.float32)
    fc.CopyFrom(numpy_helper.from_array(rows, "fc"))
    options = CalibrationOptions(pictures, least_snr_db=0)
    results = []
    for _ in range(2):
        typer = Int8Typer(model, TINY, options, silent)
        # As if the pictures to calibrate on had been of another kind.
        typer.thresholds["last"] /= 4
        evidence = evidence_on(model, pictures)
        search = Search(typer, evidence, MaxDrop(0.0), silent)
        search.run()
        results.append((search.report(), search.typed.model.SerializeToString()))
    report = results[0][0]
    assert report.agreement_before < 1.0 == report.agreement_after
    assert [(r.node, r.lowered, r.raised) for r in report.raised] == [("head", "int8", "fp16")]
    assert results[0][1] == results[1][1]
    assert dataclasses.replace(report, seconds=0) == dataclasses.replace(results[1][0], seconds=0)


def test_widening_raises_the_next_in_the_ranking_until_all_are(pictures):
    model = chain(2)
    typer = Int8Typer(model, TINY, CalibrationOptions(pictures), silent)
    search = Search(typer, evidence_on(model, pictures), MaxDrop(1.0), silent)
    search.run()
    counts = [search.typed.nodes_by_precision.get("int8", 0)]
    while search.widen():
        counts.append(search.typed.nodes_by_precision.get("int8", 0))
    assert counts == [2, 1, 0]


def test_nodes_are_ranked_once_however_often_more_is_raised(pictures):
    # Two nodes are float32 from the start, so not all that has noise is ranked.
    model = chain(24, overflow=3)
    typer = HalfTyper(model, TINY, CalibrationOptions(pictures), silent)
    ranked = []

    def told(stage, done, total):
        if stage == "Ranking nodes" and done == total:
            ranked.append(total)

    search = Search(typer, evidence_on(model, pictures), MaxDrop(1.0), told)
    search.run()
    for _ in range(3):
        assert search.widen()
    assert len(ranked) == 1


def test_the_noise_of_int8_and_of_float16_are_kept_apart(pictures):
    model = tiny_classifier()
    typer = Int8Typer(model, TINY, CalibrationOptions(pictures), silent)
    search = Search(typer, evidence_on(model, pictures), MaxDrop(1.0), silent)
    told = {}
    # The order of a search in which float16 was at fault too.
    for precision in ("fp16", "int8"):
        assert search._by_worth(["head"], precision) == ["head"]
        told[precision] = search._reason("head", precision)
    images = list(itertools.islice(ImageReader(pictures, TINY.preprocess), 4))
    rounding = half_noise(typer.view, images, silent)["head"]
    assert told["fp16"] == search._reason("head", "fp16")
    assert told["fp16"].endswith(f"alone it brings {10 * math.log10(rounding):.0f} dB")
    assert told["int8"] != told["fp16"].replace("fp16", "int8")


def test_where_nothing_helps_the_search_says_so(pictures):
    model = tiny_classifier()
    other = tiny_classifier(seed=1)
    search = Search(
        HalfTyper(model, TINY, None, silent), evidence_on(other, pictures), MaxDrop(0.0), silent
    )
    with pytest.raises(AccuracyError, match="every node raised"):
        search.run()


def test_a_conversion_reports_its_search_and_flops(tmp_path):
    report = convert(
        BuildOptions(
            save(chain(12, overflow=5), tmp_path / "chain.onnx"),
            tmp_path / "x.engine",
            precision="fp16",
            targets=("cpu",),
            recipe=RecipeFlags(task="classify", head="classifier", preprocess="none,std=255"),
            max_drop=MaxDrop(0.01),
        )
    ).to_json()
    assert report["search"]["raised"][0]["node"] == "scale5"
    assert report["verification"]["agreement"] > 0.999
    flops = 2 * 8 * SIZE * SIZE * 27 + 2 * 8 * 4
    assert sum(report["flops_by_precision"].values()) == flops


def test_int8_calibrates_on_some_images_and_is_judged_on_others(tmp_path):
    folder = save_pictures(tmp_path / "pictures", 18)
    report = convert(
        BuildOptions(
            save(tiny_classifier(), tmp_path / "tiny.onnx"),
            tmp_path / "x.engine",
            precision="int8",
            targets=("cpu",),
            recipe=RecipeFlags(task="classify", head="classifier", preprocess="none,std=255"),
            calibration=CalibrationOptions(folder),
            max_drop=MaxDrop(0.0),
        )
    ).to_json()
    assert report["calibration"]["images"] == 12
    assert report["search"]["images"] == report["verification"]["images"] == 6
    assert report["verification"]["agreement"] == 1.0
