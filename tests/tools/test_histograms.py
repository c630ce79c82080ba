"""Histograms of activations, and the thresholds that are chosen by them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trtconvert.calibration.histogram import BINS, Histogram
from trtconvert.calibration.options import CalibrationOptions
from trtconvert.calibration.ranges import (
    entropy_threshold,
    mse_threshold,
    percentile_threshold,
    threshold,
)
from visionrt.errors import ModelError, UsageError


def histogram_of(*batches):
    out = Histogram("t")
    for batch in batches:
        out.update(np.asarray(batch, np.float32))
    return out


# Histograms


def test_counts_equal_numpy_and_zeros_are_apart():
    values = np.float32([0, 0, 0.1, -0.1, 0.9, -1.5, 3.0])
    got = histogram_of(values)
    assert (got.limit, got.peak, got.zeros) == (4.0, 3.0, 2)
    want, _ = np.histogram(np.abs(values[values != 0]), BINS, (0, 4.0))
    np.testing.assert_array_equal(got.counts, want)


def test_a_power_of_two_lands_in_the_bin_above():
    got = histogram_of([2.0])
    assert got.limit == 4.0
    assert np.flatnonzero(got.counts).tolist() == [BINS // 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), min_size=1, max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_batches_does_not_matter(batches, random):
    shuffled = list(batches)
    random.shuffle(shuffled)
    whole = np.concatenate([np.float32(batch) for batch in batches])
    a = histogram_of(*batches)
    for other in (histogram_of(*shuffled), histogram_of(whole)):
        assert (a.limit, a.peak, a.zeros) == (other.limit, other.peak, other.zeros)
        np.testing.assert_array_equal(a.counts, other.counts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ModelError, match="finite"):
        histogram_of([1.0, bad])


def test_tiny_and_empty_batches():
    assert histogram_of([], [0.0, 0.0]).peak == 0.0
    assert histogram_of([1e-38]).counts.sum() == 1


# Thresholds


def quantization_error(values, limit):
    step = limit / 127
    restored = np.clip(np.rint(values / step), -127, 127) * step
    return np.square(np.float64(values) - restored).mean()


@pytest.mark.parametrize("seed", range(3))
def test_mse_is_near_the_best_threshold_of_a_search_over_the_values(seed):
    rng = np.random.default_rng(seed)
    values = rng.laplace(size=200_000).astype(np.float32)
    found = mse_threshold(histogram_of(values))
    best = min(quantization_error(values, t) for t in np.linspace(0.05, 1, 400) * values.max())
    # Within 1 %: the grid of candidates and the width of a bin.
    assert quantization_error(values, found) < 1.01 * best
    assert found < 0.9 * np.abs(values).max()


def test_mse_keeps_a_uniform_range_and_cuts_an_outlier():
    uniform = np.linspace(-1, 1, 100_001)
    assert mse_threshold(histogram_of(uniform)) > 0.98
    spiked = histogram_of(uniform, [30.0])
    # One value of 30 costs (30 - t)^2; 100001 values gain (30^2 - t^2) / 127^2 / 12.
    assert 1 <= mse_threshold(spiked) <= 30
    assert quantization_error(np.append(uniform, 30.0), mse_threshold(spiked)) <= (
        1.01 * quantization_error(np.append(uniform, 30.0), 30.0)
    )


def test_percentile_counts_zeros_and_signs():
    values = np.concatenate([np.zeros(9000), np.linspace(-1, 1, 1000)])
    found = percentile_threshold(histogram_of(values), 99.0)
    assert abs(found - np.percentile(np.abs(values), 99.0)) < 2 / BINS + 2 / 1000
    assert percentile_threshold(histogram_of(values), 100.0) == 1.0


def test_entropy_keeps_a_range_without_tail_and_cuts_a_long_thin_one():
    rng = np.random.default_rng(3)
    body = rng.uniform(-1, 1, 200_000)
    assert entropy_threshold(histogram_of(body)) > 0.95
    tail = rng.uniform(1, 20, 40)
    peaked = rng.normal(scale=0.3, size=200_000)
    assert 0.6 < entropy_threshold(histogram_of(peaked, tail)) < 5


@pytest.mark.parametrize("method", ["mse", "minmax", "percentile", "entropy"])
@pytest.mark.parametrize("values", [[1.0], [1e-30], [-3.0, 3.0], [6.5e4, 1e-3]])
def test_every_method_gives_a_threshold_inside_the_range(method, values):
    histogram = histogram_of(values)
    found = threshold(histogram, CalibrationOptions(method=method))
    assert 0 < found <= histogram.peak
    assert threshold(histogram_of([0.0]), CalibrationOptions(method=method)) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [{"method": "best"}, {"percentile": 40}, {"count": 0}, {"least_snr_db": -1.0}],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(UsageError):
        CalibrationOptions(**wrong)
