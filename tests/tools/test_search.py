"""Raising nodes: the search on made-up oracles, its ranking and cost, and on graphs."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

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
from trtconvert.decision import Decision
from trtconvert.evidence import Evidence
from trtconvert.graph_view import GraphView
from trtconvert.guess import RecipeFlags
from trtconvert.options import BuildOptions
from trtconvert.passes.half import convert_to_half
from trtconvert.passes.half_types import BF16
from trtconvert.passes.placement import place_int8
from trtconvert.passes.quantize import insert_qdq
from trtconvert.progress import silent
from trtconvert.search.answers import raw_answers
from trtconvert.search.choices import CHOICES, choice_graphs
from trtconvert.search.cost import flops_by_precision, node_cost, node_flops, total_cost
from trtconvert.search.fewest import Oracle, budget, fewest
from trtconvert.search.noise import half_noise, int8_noise
from trtconvert.search.raising import Search
from trtconvert.typers import HalfTyper, Int8Typer
from trtconvert.verify import MaxDrop
from visionrt.backends.onnxruntime import OnnxRuntimeBackend
from visionrt.errors import AccuracyError
from visionrt.recipe import Recipe
from visionrt.spec import PreprocessSpec

HEADER = '<ir_version: 9, opset_import: ["": 19]>\n'
TINY = Recipe(
    task="classify",
    head="classifier",
    preprocess=PreprocessSpec(resize="stretch", size=(SIZE, SIZE), mean=(0, 0, 0), std=(255,) * 3),
)


def view_of(text, **constants):
    model = onnx.parser.parse_model(HEADER + text)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return GraphView(model)


# The search on made-up oracles


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 257])
def test_one_culprit_is_found_alone_wherever_the_ranking_put_it(count):
    ranked = [f"n{i}" for i in range(count)]
    for culprit in {ranked[0], ranked[count // 2], ranked[-1]}:
        oracle = Oracle(lambda raised, culprit=culprit: culprit in raised)
        assert fewest(ranked, oracle) == [culprit]
        assert oracle.evaluations <= 2 * math.log2(count) + 8


def test_nothing_is_raised_where_nothing_must_be_and_none_where_all_do_not_help():
    oracle = Oracle(lambda raised: True)
    assert fewest(["a", "b"], oracle) == []
    assert oracle.evaluations == 1
    assert fewest(["a", "b"], Oracle(lambda raised: False)) is None
    assert fewest([], Oracle(lambda raised: False)) is None


def test_every_result_was_seen_to_hold_and_stays_within_the_budget():
    # Oracles without any order: each set holds by the toss of a coin that is remembered.
    for seed in range(200):
        rng = random.Random(seed)
        ranked = [f"n{i}" for i in range(rng.randint(1, 40))]
        known = {frozenset(): False, frozenset(ranked): True}

        def holds(raised, known=known, rng=rng):
            return known.setdefault(raised, rng.random() < 0.5)

        oracle = Oracle(holds)
        found = fewest(ranked, oracle)
        assert known[frozenset(found)]
        assert oracle.evaluations <= budget(len(ranked))
        assert found == [name for name in ranked if name in found]


def test_a_noisy_prefix_is_found_and_its_useless_members_are_lowered_again():
    ranked = [f"n{i}" for i in range(64)]
    needed = {"n0", "n1", "n5"}
    oracle = Oracle(lambda raised: needed <= raised)
    found = fewest(ranked, oracle, most=100)
    assert set(found) == needed


# Cost


def test_flops_equal_a_count_by_hand():
    view = view_of(
        "g (float[1,4,8,8] x) => (float[1,5] y) { c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)\n"
        " d = Conv<group=6>(c, v)\n t = ConvTranspose(d, u)\n p = GlobalAveragePool(t)\n"
        " f = Flatten(p)\n y = Gemm<transB=1>(f, k) }",
        w=np.zeros((6, 4, 3, 3), np.float32),
        v=np.zeros((6, 1, 1, 1), np.float32),
        u=np.zeros((6, 3, 2, 2), np.float32),
        k=np.zeros((5, 3), np.float32),
    )
    flops = [node_flops(view, node) for node in view.model.graph.node]
    assert flops == [2 * 6 * 16 * 36, 2 * 6 * 16, 2 * 6 * 16 * 3 * 4, 0, 0, 2 * 5 * 3]
    decisions = [Decision(n.output[0], n.op_type, "int8", "") for n in view.model.graph.node]
    decisions[1] = decisions[1]._replace(precision="fp16")
    assert flops_by_precision(view, decisions) == {
        "int8": sum(flops) - flops[1],
        "fp16": flops[1],
    }


def test_a_wider_precision_never_costs_less():
    view = GraphView(tiny_classifier(batch=1))
    nodes = view.model.graph.node
    for node in nodes:
        costs = [node_cost(view, node, precision) for precision in ("int8", "fp16", "fp32")]
        assert costs == sorted(costs)
    for combination in itertools.product(("int8", "fp16", "fp32"), repeat=2):
        base = [Decision(n.name, n.op_type, "int8", "") for n in nodes]
        changed = list(base)
        changed[0] = base[0]._replace(precision=combination[0])
        changed[-1] = base[-1]._replace(precision=combination[1])
        assert total_cost(view, changed) >= total_cost(view, base)


# Ranking


def test_int8_noise_equals_a_graph_with_that_node_quantized_alone():
    rng = np.random.default_rng(3)
    view = view_of(
        "g (float[1,3,6,6] x) => (float[1,5,6,6] y) { a = Conv(x, w)\n b = Relu(a)\n"
        " c = Conv(b, v)\n y = Softmax<axis=1>(c) }",
        w=rng.normal(size=(4, 3, 1, 1)).astype(np.float32),
        v=rng.normal(size=(5, 4, 1, 1)).astype(np.float32),
    )
    assert raw_answers(view) == ["c"]
    images = [rng.normal(size=(1, 3, 6, 6)).astype(np.float32) for _ in range(2)]
    placement, thresholds = place_int8(view), {"x": 3.0, "b": 2.0}
    found = int8_noise(view, placement, thresholds, images, {"c": 1.0}, silent)
    assert list(found) == ["a", "c"]

    def answer(model, x):
        del model.graph.output[:]
        model.graph.output.append(onnx.helper.make_tensor_value_info("c", 1, None))
        backend = OnnxRuntimeBackend(model.SerializeToString(), optimize=False)
        return backend.run({"x": x})["c"].astype(np.float64)

    for name, other in (("a", "c"), ("c", "a")):
        alone = place_int8(view, keep={other: "float"})
        total = 0.0
        for x in images:
            model = onnx.ModelProto()
            model.CopyFrom(view.model)
            clean = answer(model, x)
            noisy = answer(insert_qdq(view, alone, thresholds), x)
            varies = clean - clean.mean(axis=(2, 3), keepdims=True)
            total += np.square(noisy - clean).sum() / np.square(varies).sum()
        assert found[name] == pytest.approx(total / 2, rel=1e-4)


def branching_view():
    """Six layers, two answers; one is written before the last layers are reached."""
    rng = np.random.default_rng(8)
    weights = {
        name: rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for name in ("u", "v", "w", "k", "m")
    }
    return view_of(
        "g (float[1,4,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] z) { a = Conv(x, u)\n"
        " b = Relu(a)\n early = Conv(b, v)\n c = Conv(b, w)\n d = Add(b, c)\n e = Conv(d, k)\n"
        " f = Relu(e)\n h = Conv(f, m)\n s = Add(h, b)\n late = Conv(s, u)\n"
        " y = Sigmoid(early)\n z = Sigmoid(late) }",
        **weights,
    )


def test_the_parts_hold_each_node_once_and_give_what_the_whole_graph_gives():
    view = branching_view()
    placement = place_int8(view)
    thresholds = dict.fromkeys(placement.activations, 4.0)
    parts = choice_graphs(view, placement, thresholds, raw_answers(view))
    names = [name for part in parts for name in part.nodes]
    assert names == ["a", "early", "c", "e", "h", "late"]
    assert len(parts) > 1
    x = np.random.default_rng(2).normal(size=(1, 4, 6, 6)).astype(np.float32)
    whole = OnnxRuntimeBackend(with_outputs(view.model, list(view.producer)).SerializeToString())
    exact = {"x": x, **whole.run({"x": x})}
    reached = []
    for part in parts:
        backend = OnnxRuntimeBackend(part.model().SerializeToString())
        feed = {name: exact[name] for name in part.inputs}
        none = backend.run({**feed, CHOICES: np.zeros(len(part.nodes), np.bool_)})
        for name, value in none.items():
            np.testing.assert_allclose(value, exact[name], rtol=1e-5, atol=1e-5)
        everything = backend.run({**feed, CHOICES: np.ones(len(part.nodes), np.bool_)})
        assert all(np.abs(everything[name] - exact[name]).max() > 1e-3 for name in none)
        reached.append(set(none))
    assert reached[0] == {"early", "late"}
    assert reached[-1] == {"late"}


def test_half_noise_is_infinite_at_an_overflow_and_large_at_an_underflow():
    view = view_of(
        "g (float[1,4] x) => (float[1,4] y) { a = Mul(x, big)\n b = Mul(a, small)\n"
        " c = Mul(b, tiny)\n d = Div(c, tiny)\n y = Relu(d) }",
        big=np.float32(2.0**17),
        small=np.float32(2.0**-13),
        tiny=np.float32(1e-9),
    )
    noise = half_noise(view, [np.float32([[1.1, 2.2, 3.3, 4.4]])], silent)
    assert noise["a"] == math.inf
    assert noise["c"] == pytest.approx(1.0)
    # The rounding of 11 bits, squared.
    assert noise["b"] < 2.0**-22
    assert noise["y"] < 2.0**-22
    # bfloat16 holds all of them, in 8 bits: half a step in 256, squared.
    coarse = half_noise(view, [np.float32([[1.1, 2.2, 3.3, 4.4]])], silent, BF16)
    assert set(coarse) == set(noise)
    assert 2.0**-26 < max(coarse.values()) < 2.0**-16


# Kept nodes


def test_a_node_kept_float32_takes_its_readers_along():
    view = view_of("g (float[1,4] x) => (float[1,4] y) { a = Relu(x)\n b = Abs(a)\n y = Neg(b) }")
    _, decisions = convert_to_half(view.model, keep={"a": "because"})
    assert [(d.precision, d.reason) for d in decisions] == [
        ("fp32", "because"),
        ("fp32", "reads a, which stays float32"),
        ("fp16", "float arithmetic"),
    ]


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
