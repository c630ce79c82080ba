"""The harness of the CPU benchmarks: turns, ratios, floors, table, comparison of files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import FLOOR, OURS, Case, Measured, measure, save, table

COMPARE = Path(__file__).resolve().parents[2] / "benchmarks" / "compare.py"


def measured(**changes: Any) -> Measured:
    times = {
        OURS: np.array([1.0, 2.0, 4.0]),
        "peer": np.array([3.0, 8.0, 8.0]),
        FLOOR: np.array([0.5, 0.5, 4.0]),
    }
    return Measured("a case", times, **changes)


def test_candidates_take_turns_and_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    case = Case(
        "turns",
        {OURS: lambda: calls.append("ours"), "peer": lambda: calls.append("peer")},
        rounds=4,
        floor=lambda: calls.append("floor"),
    )
    result = measure(case)
    # Each round begins with the next one, three of warm-up before the four that count.
    a, b, c = ["ours", "peer", "floor"], ["peer", "floor", "ours"], ["floor", "ours", "peer"]
    assert calls == [*a, *b, *c, *a, *b, *c, *a]
    assert {name: len(times) for name, times in result.times_ms.items()} == {
        OURS: 4,
        "peer": 4,
        FLOOR: 4,
    }
    assert result.peers == ["peer"]


def test_a_slow_case_warms_up_for_as_long_as_it_says() -> None:
    calls: list[str] = []
    measure(Case("slow", {OURS: lambda: calls.append("ours")}, rounds=2, warm_up=1))
    assert len(calls) == 3


def test_ratios_are_taken_round_by_round() -> None:
    result = measured()
    # 3, 4 and 2 times; ours is 2, 4 and 1 times the floor.
    assert result.ratio("peer") == (2.5, 3.0, 3.5)
    assert result.floor_ratio() == 2.0
    assert result.gap() == (-5000, -4000, -3000)


# Ratios have quartiles 2.5, 3 and 3.5, gaps -5000, -4000 and -3000.
@pytest.mark.parametrize(
    ("target", "gap_us", "verdict"),
    [(3.0, -4000.0, ""), (3.1, -4500.0, " near"), (3.6, -5500.0, " missed")],
)
def test_the_table_says_what_missed_its_target(target: float, gap_us: float, verdict: str) -> None:
    text = table([measured(targets={"peer": target}, gap_us=gap_us)])
    line, gap = text.splitlines()[1:]
    assert line.split()[:7] == ["a", "case", "peer", "2.000", "8.000", "3.00×", "2.50"]
    assert f"{target:.3g}×{verdict}  " in line
    assert line.endswith("2.00")
    assert "-4000 µs" in gap
    assert gap.endswith(f"{gap_us:g} µs{verdict}")


def test_a_ratio_that_fell_is_found(tmp_path: Path) -> None:
    def compared(new: Measured) -> subprocess.CompletedProcess[str]:
        save([measured()], tmp_path / "old.json", {"images": 5})
        save([new], tmp_path / "new.json", {})
        files = [str(tmp_path / "old.json"), str(tmp_path / "new.json")]
        command = [sys.executable, str(COMPARE), *files]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    same = compared(measured())
    assert same.returncode == 0, same.stderr
    slower = measured()
    slower.times_ms[OURS] = slower.times_ms[OURS] * 2
    done = compared(slower)
    assert done.returncode == 1
    assert "3.00× → 1.50×" in done.stdout
    body = json.loads((tmp_path / "old.json").read_text())
    assert body["memory"] == {"images": 5}
    assert body["results"][0]["times_the_floor"] == 2.0
    assert set(body["machine"]) >= {"processor", "cores", "packages", "instruction_set"}
