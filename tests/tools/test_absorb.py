"""A scaling of the input goes into the first convolution, and the result stays the same."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import branch_on, graph_of, make, run, stored, value

from trtconvert.passes.absorb import absorb_scale


def scaled(*nodes, group=1, pads=(1, 1, 1, 1), outputs=("y",), **constants):
    rng = np.random.default_rng(0)
    weights = [stored(name, np.array(array, np.float32)) for name, array in constants.items()]
    weights.append(stored("w", rng.normal(size=(6, 3 // group, 3, 3)).astype(np.float32)))
    conv = make("Conv", [nodes[-1].output[0], "w"], ["y"], pads=list(pads), group=group)
    return graph_of([*nodes, conv], weights, outputs=[value(n, None) for n in outputs])


@pytest.mark.parametrize(
    ("model", "gone"),
    [
        (scaled(make("Mul", ["x", "k"], ["a"]), k=0.25), 1),
        (scaled(make("Div", ["x", "k"], ["a"]), k=np.reshape([2.0, 4, 8], (3, 1, 1))), 1),
        (scaled(make("Mul", ["k", "x"], ["a"]), k=np.reshape([2.0, 4, 8], (1, 3, 1, 1))), 1),
        (scaled(make("Mul", ["x", "k"], ["a"]), make("Div", ["a", "m"], ["b"]), k=3.0, m=7.0), 2),
        (scaled(make("Sub", ["x", "m"], ["a"]), make("Div", ["a", "k"], ["b"]), m=1.0, k=2.0), 1),
        # Rules that do not apply.
        (scaled(make("Sub", ["x", "m"], ["a"]), m=1.0), 0),
        (scaled(make("Div", ["k", "x"], ["a"]), k=2.0), 0),
        (scaled(make("Div", ["x", "k"], ["a"]), k=0.0), 0),
        (scaled(make("Mul", ["x", "k"], ["a"]), k=np.ones(8)), 0),
        (scaled(make("Mul", ["x", "k"], ["a"]), k=0.5, group=3), 0),
        (scaled(make("Mul", ["x", "k"], ["a"]), k=0.5, outputs=("y", "a")), 0),
    ],
)
def test_rules(model, gone):
    image = {"x": np.random.default_rng(1).random((2, 3, 8, 8), np.float32) + 1}
    before = run(model, image)
    nodes = len(model.graph.node)
    assert absorb_scale(model) == gone
    assert len(model.graph.node) == nodes - gone
    for was, now in zip(before, run(model, image), strict=True):
        # Weights are rounded once, to a relative 2**-24; 27 terms are summed.
        np.testing.assert_allclose(now, was, rtol=1e-5, atol=1e-5)


def test_a_constant_that_makes_three_channels_of_one_stays():
    rng = np.random.default_rng(0)
    weights = [
        stored("k", np.reshape([1, 2, 3], (1, 3, 1, 1)).astype(np.float32)),
        stored("w", rng.normal(size=(6, 3, 3, 3)).astype(np.float32)),
    ]
    nodes = [make("Mul", ["x", "k"], ["a"]), make("Conv", ["a", "w"], ["y"])]
    gray = [value("x", ["n", 1, 8, 8])]
    model = graph_of(nodes, weights, inputs=gray, outputs=[value("y", None)])
    assert absorb_scale(model) == 0
    (result,) = run(model, {"x": np.ones((1, 1, 8, 8), np.float32)})
    assert result.shape == (1, 6, 6, 6)


def test_a_scaling_that_a_branch_reads_stays():
    weights = [
        stored("k", np.float32(0.5)),
        stored("w", np.ones((6, 3, 3, 3), np.float32)),
        stored("condition", np.array(True)),
    ]
    nodes = [
        make("Mul", ["x", "k"], ["a"]),
        make("Conv", ["a", "w"], ["c"]),
        branch_on("condition", "a", "mean"),
        make("Add", ["c", "mean"], ["y"]),
    ]
    model = graph_of(nodes, weights, outputs=[value("y", None)])
    assert absorb_scale(model) == 0
    (result,) = run(model, {"x": np.ones((1, 3, 8, 8), np.float32)})
    np.testing.assert_allclose(result, 27 * 0.5 + 0.5, rtol=1e-6)
