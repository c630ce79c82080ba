"""What was exported in training mode computes what is used in inference."""

from __future__ import annotations

import numpy as np
from graphs import graph_of, make, ones, ranges, run, stored, value

from trtconvert.clean import clean_model
from trtconvert.passes.inference import without_training

STATISTICS = [
    stored("scale", np.array([2, 1, 1], np.float32)),
    stored("shift", np.array([0, 1, 0], np.float32)),
    stored("mean", np.array([0, 0, 0.5], np.float32)),
    stored("var", np.array([1, 1, 0.25], np.float32)),
]
READS = ["x", "scale", "shift", "mean", "var"]


def test_batch_normalization_uses_the_stored_statistics():
    node = make("BatchNormalization", READS, ["y", "m", "v"], training_mode=1, epsilon=0.0)
    model = without_training(graph_of([node], STATISTICS))
    (got,) = run(model, ones())
    np.testing.assert_allclose(got[0, :, 0, 0], [2, 2, 1], rtol=1e-6)


def test_dropout_passes_on_what_it_reads():
    weights = [stored("ratio", np.float32(0.5)), stored("training", np.array(True))]
    node = make("Dropout", ["x", "ratio", "training"], ["y"])
    (got,) = run(without_training(graph_of([node], weights)), ones())
    np.testing.assert_array_equal(got, ones()["x"])


def test_a_graph_that_trains_or_has_nothing_to_change_stays():
    node = make("BatchNormalization", READS, ["y", "m", "v"], training_mode=1)
    outputs = [value("y", ["n", 3, 8, 8]), value("m", [3])]
    trains = without_training(graph_of([node], STATISTICS, outputs=outputs))
    assert list(trains.graph.node[0].output) == ["y", "m", "v"]
    plain = graph_of([make("BatchNormalization", READS, ["y"])], STATISTICS)
    assert without_training(plain) is plain


def test_older_operator_sets_say_in_other_ways_that_they_train():
    node = make("BatchNormalization", READS, ["y", "m", "v", "sm", "sv"], epsilon=0.0)
    model = without_training(graph_of([node], STATISTICS, opset=13))
    (got,) = run(clean_model(model, ranges()), ones())
    np.testing.assert_allclose(got[0, :, 0, 0], [2, 2, 1], rtol=1e-6)

    # The converter of operator sets refuses what trains.
    dropout = without_training(graph_of([make("Dropout", ["x"], ["y"], is_test=0)], opset=6))
    (got,) = run(clean_model(dropout, ranges()), ones())
    np.testing.assert_array_equal(got, ones()["x"])
