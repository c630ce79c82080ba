"""The checker of the emulated kernels finds every seeded bug, and nothing in its repair."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import pytest

from emulation import build
from emulation.emulator import Emulator

if build.compiler() is None:
    pytest.skip("the emulation is built by g++", allow_module_level=True)

SOURCE = Path(build.__file__).with_name("seeded_bugs.cu")
N = 128

# What must be found. Kernels run on two blocks of 64 threads, `in` and `out` hold 128 int32.
RACE, UNWRITTEN, BOUNDS = "data race", "read of unwritten memory", "out of bounds"
MISALIGNED, BARRIER = "misaligned access", "divergent barrier"
MASK, EXITED, ENDLESS = "wrong mask", "exited lane", "endless loop"
KIND = {
    "missing_barrier": RACE,
    "tile_reused_too_early": RACE,
    "blocks_write_one_place": RACE,
    "block_reads_its_neighbours_output": RACE,
    "counter_without_atomics": RACE,
    "atomic_result_read_plainly": RACE,
    "warp_exchange_without_syncwarp": RACE,
    "vote_taken_for_a_fence": RACE,
    "half_a_warp_synchronised": RACE,
    "last_block_without_a_fence": RACE,
    "neighbouring_bytes_of_one_word": RACE,
    "unwritten_shared": UNWRITTEN,
    "shared_kept_from_another_block": UNWRITTEN,
    "unwritten_global": UNWRITTEN,
    "write_past_the_end": BOUNDS,
    "read_before_the_start": BOUNDS,
    "grid_without_a_guard": BOUNDS,
    "shared_index_past_the_end": BOUNDS,
    "shared_read_past_the_end_by_pointer": BOUNDS,
    "shared_pointer_past_the_end": BOUNDS,
    "dynamic_shared_too_small": BOUNDS,
    "misaligned_wide_load": MISALIGNED,
    "misaligned_wide_store_to_shared": MISALIGNED,
    "barrier_in_a_divergent_branch": BARRIER,
    "return_before_a_barrier": BARRIER,
    "two_barriers_for_two_halves": BARRIER,
    "barrier_in_a_loop_of_uneven_length": BARRIER,
    "barrier_against_a_shuffle": BARRIER,
    "blocks_wait_for_each_other": ENDLESS,
    "lane_outside_its_own_mask": MASK,
    "shuffle_from_a_lane_outside_the_mask": MASK,
    "full_mask_in_a_divergent_branch": MASK,
    "lanes_disagree_on_the_mask": MASK,
    "one_mask_at_two_places": MASK,
    "shuffle_from_an_exited_lane": EXITED,
    "vote_that_names_exited_lanes": EXITED,
}
# Kernels that read `out` before anybody wrote it count on zeros.
ZEROED = {"counter_without_atomics", "last_block_without_a_fence", "blocks_wait_for_each_other"}
BLOCKS = {"write_past_the_end": 3, "grid_without_a_guard": 3}
DYNAMIC_BYTES = {"dynamic_shared_too_small": 64 * 4}


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(build.kernel_library([SOURCE]))


def run(emulator: Emulator, kernel: str, seed: int, name: str | None = None) -> list[str]:
    """One launch; returns the findings."""
    case = name or kernel.split("_", 1)[1]
    emulator.seed(seed)
    out = (
        emulator.buffer(np.zeros(N, np.int32), "out")
        if case in ZEROED
        else emulator.empty(N, np.int32, "out")
    )
    with out, emulator.buffer(np.arange(N, dtype=np.int32), "in") as given:
        count = emulator.launch(
            kernel,
            (BLOCKS.get(case, 2),),
            (64,),
            *(out, given, ctypes.c_int(N)),
            shared_bytes=DYNAMIC_BYTES.get(case, 0),
        )
    found = emulator.findings()
    assert count == len(found)
    return found


def kinds(found: list[str]) -> set[str]:
    return {line.split(": ")[1] for line in found}


def test_the_table_names_every_seeded_bug() -> None:
    names = set(re.findall(r"^SEEDED_BUG\((\w+)\)", SOURCE.read_text(), re.MULTILINE))
    assert names == set(KIND)
    assert len(names) >= 12


def test_the_readme_lists_every_seeded_bug() -> None:
    text = SOURCE.with_name("README.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([a-z ]+) \| \S", text, re.MULTILINE)
    assert dict(rows) == KIND


@pytest.mark.parametrize("name", KIND)
def test_a_seeded_bug_is_found_in_any_order(emulator: Emulator, name: str) -> None:
    for seed in range(20):
        found = run(emulator, f"bug_{name}", seed)
        # Who reads too early may find what nobody has written yet.
        assert kinds(found) - ({UNWRITTEN} if KIND[name] == RACE else set()) == {KIND[name]}, found
        for line in found:
            assert line.startswith(f"bug_{name}: ")
            assert "thread (" in line
            assert "seeded_bugs.cu:" in line


@pytest.mark.parametrize("name", KIND)
def test_its_repair_is_clean_in_any_order(emulator: Emulator, name: str) -> None:
    for seed in range(20):
        assert run(emulator, f"fixed_{name}", seed) == []
