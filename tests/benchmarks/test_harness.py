"""The harness of the CPU benchmarks: turns, ratios, floors, table, comparison of files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import FLOOR, OURS, Case, Measured, OwnTime, measure
from lines import Line, lines_of, save, shortfalls, table

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


# Ratios have quartiles 2.5, 3 and 3.5, gaps -5000, -4000 and -3000, shares of the floor 1.5 … 3.
@pytest.mark.parametrize(
    ("target", "gap_us", "most_floors", "verdict"),
    [(3.0, -4000.0, 2.0, "met"), (3.1, -4500.0, 1.9, "near"), (3.6, -5500.0, 1.4, "missed")],
)
def test_the_table_says_what_missed_its_target(
    target: float, gap_us: float, most_floors: float, verdict: str
) -> None:
    lines = lines_of([[measured(targets={"peer": target}, gap_us=gap_us, most_floors=most_floors)]])
    ratio, gap, share = table(lines).splitlines()[1:]
    assert ratio.split()[:8] == ["a", "case", "peer", "2.000", "8.000", "3.00", "×", "2.50"]
    assert f"≥ {target:.3g} {verdict}  " in ratio
    assert ratio.split()[-2:] == ["0.500", "4.00"]
    assert "-4000 µs" in gap
    assert f"≤ {gap_us:.3g} {verdict}  " in gap
    assert f"≤ {most_floors:.3g} {verdict}  " in share
    assert [line.verdict for line in lines] == [verdict] * 3


def test_several_runs_have_a_median_and_a_spread() -> None:
    runs = [[measured(targets={"peer": 5})] for _ in range(3)]
    for factor, (case,) in zip((1, 2, 0.5), runs, strict=True):
        case.times_ms["peer"] = case.times_ms["peer"] * factor
        case.detail = f"chosen {factor}"
    (line,) = lines_of(runs)
    assert line.per_run == (3.0, 6.0, 1.5)
    assert (line.figure, line.spread, line.verdict) == (3.0, (1.5, 6.0), "near")
    assert line.to_json()["spread"] == [1.5, 6.0]
    text = table([line])
    assert "of the runs" in text
    assert "1.50 … 6.00" in text
    assert "a case (chosen 1 | chosen 2 | chosen 0.5)" in text


def test_a_line_that_is_short_says_why() -> None:
    case = measured(targets={"peer": 17.0}, gap_us=-9000.0, why="all is copied", tried="a prayer")
    lines = lines_of([[case]])
    text = shortfalls(lines)
    head, ratio, gap = text.splitlines()
    assert head == "0 of 2 targets are met"
    # The peer takes 8 ms in the median and the floor 0.5.
    assert "at least 17 is aimed at: the floor alone would have 16.00×; all is" in ratio
    assert ratio.endswith("all is copied. Tried: a prayer.")
    assert "at most -9e+03 is aimed at: all is copied." in gap
    assert lines[0].to_json()["reason"].endswith("all is copied")
    # A floor that leaves room explains nothing.
    assert "floor" not in lines_of([[measured(targets={"peer": 9.0}, why="x")]])[0].reason
    bare = lines_of([[measured(targets={"peer": 9.0})]])[0]
    assert bare.reason == "no analysis of a floor is written for this line"
    met = lines_of([[measured(targets={"peer": 1.0}, why="x", tried="y")]])
    assert shortfalls(met) == "1 of 1 targets are met"
    assert (met[0].to_json()["reason"], met[0].to_json()["tried"]) == ("", "")


def test_a_figure_without_rounds_is_a_line_too() -> None:
    line = Line("memory", "image 100", "MiB", (6.0, 4.0, 5.5), (4.0, 6.0), 5.0, is_least=False)
    assert (line.figure, line.verdict, line.reach) == (5.5, "near", None)
    assert "5.5 MiB" in table([line])


def test_a_time_that_a_candidate_gives_itself_counts() -> None:
    result = measure(Case("own", {OURS: lambda: None, "peer": lambda: OwnTime(5.0)}, rounds=3))
    assert result.times_ms["peer"].tolist() == [5000.0] * 3
    assert result.times_ms[OURS].max() < 5000


def test_who_follows_a_wait_for_another_process_is_called_once_before() -> None:
    calls: list[str] = []

    def noted(name: str, result: object) -> Callable[[], object]:
        return lambda: calls.append(name) or result  # type: ignore[func-returns-value]

    candidates = {OURS: noted("ours", None), "peer": noted("peer", OwnTime(1.0))}
    measure(Case("waits", candidates, rounds=1, warm_up=1))
    assert calls == ["ours", "peer", *["peer"] * 2, *["ours"] * 2]


def compared(folder: Path, old: Measured, new: Measured) -> subprocess.CompletedProcess[str]:
    for name, case in (("old", old), ("new", new)):
        path = folder / f"{name}.json"
        save(
            [[case]],
            lines_of([[case]]),
            path,
            memory={"images": 5},
            left_out={"a": "b"},
            peers={"torch": "9"},
        )
    files = [str(folder / "old.json"), str(folder / "new.json")]
    command = [sys.executable, str(COMPARE), *files]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_ratio_that_fell_is_found(tmp_path: Path) -> None:
    same = compared(tmp_path, measured(), measured())
    assert same.returncode == 0, same.stderr
    slower = measured()
    slower.times_ms[OURS] = slower.times_ms[OURS] * 2
    done = compared(tmp_path, measured(), slower)
    assert done.returncode == 1
    assert "3.00× → 1.50×" in done.stdout
    body = json.loads((tmp_path / "old.json").read_text())
    assert body["memory"] == {"images": 5}
    assert (body["left_out"], body["peers_elsewhere"]) == ({"a": "b"}, {"torch": "9"})
    assert [(line["what"], line["median"]) for line in body["lines"]] == [("a case", 3.0)]
    assert body["results"][0]["times_the_floor"] == 2.0
    assert set(body["machine"]) >= {"processor", "cores", "packages", "instruction_set"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.json", "old.json"]


def test_a_gap_that_grew_past_its_target_is_found(tmp_path: Path) -> None:
    def with_gap(gap_us: float) -> Measured:
        times = {OURS: np.full(3, 10 + gap_us / 1e3), "peer": np.full(3, 10.0)}
        return Measured("glue", times, gap_us=60)

    # The ratio to 10 ms does not show it.
    done = compared(tmp_path, with_gap(40), with_gap(100))
    assert done.returncode == 1, done.stdout
    assert "glue: 40 µs → 100 µs, at most 60  slower" in done.stdout
    assert compared(tmp_path, with_gap(20), with_gap(55)).returncode == 0
    assert compared(tmp_path, with_gap(200), with_gap(150)).returncode == 0


def test_files_with_nothing_in_common_are_not_taken_for_equal(tmp_path: Path) -> None:
    other = measured()
    other.name = "another case"
    done = compared(tmp_path, measured(), other)
    assert done.returncode == 2
    assert "a case in common, got none" in done.stderr
    (tmp_path / "old.json").write_text("[]")
    command = [sys.executable, str(COMPARE), *map(str, [tmp_path / "old.json"] * 2)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected a result file of run.py" in done.stderr
