"""The search for the fewest nodes to raise, on made-up oracles."""

from __future__ import annotations

import math
import random

import pytest

from trtconvert.search.fewest import Oracle, budget, fewest

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
