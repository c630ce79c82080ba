"""tools/dev/kernels.py: its budgets, formulas, reports of ptxas and machine code, and verdicts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> Any:
    """The modules of tools/dev, which are scripts and in no package."""
    sys.path.insert(0, str(ROOT / "tools" / "dev"))
    try:
        import kernel_budget
        import kernels
        import sass
    finally:
        sys.path.pop(0)

    class Tool:
        budget, main, machine_code = kernel_budget, kernels, sass

    return Tool


SOURCE = """// What it does.
//
// budget: first registers<=40 spills=0 shared<=2048 launches=2 wide="load, store"
//   bytes="4*anchors*(classes + 1) +
//          16*kept"
// budget: second registers<=64 spills=8 shared<=0 bytes="12*w*h"
#include "x.h"
"""

# As ptxas of CUDA 13 writes it.
PTXAS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 2048 bytes smem
ptxas info    : Compile time = 187.693 ms
ptxas info    : Compiling entry function 'second' for 'sm_120a'
ptxas info    : Function properties for second
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 70 registers, 3744 bytes cmem[0]
"""

# As nvdisasm -c writes it.
SASS = """\t.section\t.text.first,"ax",@progbits
.text.first:
        /*0000*/                   LDC R1, c[0x0][0x37c] ;
        /*0330*/                   LDG.E.128.CONSTANT R4, desc[UR8][R4.64] ;
        /*03c0*/                   STS.128 [R10], R4 ;
        /*0590*/              @!P0 STG.E.128 desc[UR8][R4.64], R8 ;
.text.second:
        /*0000*/                   LDS.128 R4, [R4] ;
        /*0010*/                   LDG.E.64 R4, desc[UR8][R4.64] ;
        /*0020*/               @P1 STG.E desc[UR8][R2.64], R9 ;
"""


def test_budgets_are_read_with_and_without_what_may_be_left_out(tool: Any) -> None:
    found = tool.budget.budgets_of(SOURCE)
    assert list(found) == ["first", "second"]
    first, second = found.values()
    assert (first.registers, first.spills, first.shared) == (40, 0, 2048)
    assert (first.launches, first.wide) == (2, ("load", "store"))
    assert (second.spills, second.launches, second.wide) == (8, 1, ())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('// budget: k registers<=x spills=0 shared<=0 bytes="1"', "expected '<kernel> registers"),
        ("// budget: k registers<=1 spills=0 shared<=0", "expected '<kernel> registers"),
        ('// budget: k registers<=1 spills=0 shared<=0 wide="move" bytes="1"', "wide="),
        ('// budget: k registers<=1 spills=0 shared<=0 bytes="4*rows"', "got rows"),
        ('// budget: k registers<=1 spills=0 shared<=0 bytes="4*(w"', "expected a formula"),
        ('// budget: k registers<=1 spills=0 shared<=0 bytes="w/0"', "division by zero"),
        ('// budget: k registers<=1 spills=0 shared<=0 bytes="exit(1)"', r"got exit\(1\)"),
        ('// budget: k registers<=1 spills=0 shared<=0 bytes="min()"', "expected a formula"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused(tool: Any, line: str, words: str) -> None:
    with pytest.raises(tool.budget.BudgetError, match=words):
        tool.budget.budgets_of(line + "\n")


def test_two_budgets_for_one_kernel_are_refused(tool: Any) -> None:
    line = '// budget: k registers<=1 spills=0 shared<=0 bytes="1"\n'
    with pytest.raises(tool.budget.BudgetError, match="one budget for k"):
        tool.budget.budgets_of(line * 2)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("2 + 3*4 - 6/4", 12.5),
        ("3*W*min(H, 2*resized_h) + 12*h*w", 3 * 1920 * 720 + 12 * 640 * 640),
        ("ceil(anchors/2048) + max(1, kept)", 5 + 300),
    ],
)
def test_a_formula_has_its_value(tool: Any, formula: str, value: float) -> None:
    assert tool.budget.evaluate(formula, tool.budget.REFERENCE) == value


def test_a_floor_is_bytes_over_bandwidth(tool: Any) -> None:
    second = tool.budget.budgets_of(SOURCE)["second"]
    # 4,915,200 bytes at 1.0 TB/s.
    assert second.floor_us(1.0e12, tool.budget.REFERENCE) == pytest.approx(4.9152, rel=1e-12)
    rows = [line for line in tool.budget.floors({"second": second}) if line.startswith("second")]
    assert rows[0].split()[1:6] == ["1", "4,915,200", "1.47", "4.92", "23.98"]


def test_the_report_of_ptxas_is_read(tool: Any) -> None:
    first, second = tool.main.usages_of(PTXAS)
    assert vars(first) == {
        "kernel": "first",
        "arch": "90",
        "registers": 32,
        "spill_bytes": 0,
        "shared_bytes": 2048,
        "wide": None,
    }
    assert (second.arch, second.registers, second.spill_bytes, second.shared_bytes) == (
        "120",
        70,
        20,
        0,
    )


def test_only_128_bit_accesses_to_device_memory_count(tool: Any) -> None:
    assert tool.machine_code.wide_accesses(SASS) == {"first": {"load", "store"}, "second": set()}


def test_what_is_over_its_budget_is_said(tool: Any) -> None:
    budgets = tool.budget.budgets_of(SOURCE)
    first, second = tool.main.usages_of(PTXAS, tool.machine_code.wide_accesses(SASS))
    broken = tool.main.broken_rules
    assert broken(first, budgets["first"]) == []
    assert broken(second, budgets["second"]) == [
        "second on sm_120: 70 registers, budget 64",
        "second on sm_120: 20 spill bytes, budget 8",
    ]
    assert broken(first, None) == ["first: no budget line in its file"]
    claimed = replace(budgets["second"], registers=70, spills=20, wide=("store",))
    assert broken(second, claimed) == [
        "second on sm_120: no 128-bit store, which its budget claims"
    ]
    assert broken(replace(second, wide=None), claimed) == []


def test_a_frame_has_all_its_kernels_and_at_most_five_launches(tool: Any) -> None:
    one = tool.budget.budgets_of(SOURCE)["second"]
    names = tool.budget.DETECTOR_FRAMES["cv2"] + tool.budget.DETECTOR_FRAMES["pil"]
    whole = dict.fromkeys(names, one)
    assert tool.budget.frame_problems(whole) == []
    problems = tool.budget.frame_problems(whole | {"nms_sort": replace(one, launches=2)})
    assert problems == [f"frame, {mode}: 6 launches, budget 5" for mode in ("cv2", "pil")]
    del whole["nms_greedy"]
    assert "frame, cv2: no kernel nms_greedy" in tool.budget.frame_problems(whole)


def test_a_summary_says_whether_the_machine_code_was_read(tool: Any) -> None:
    usages = tool.main.usages_of(PTXAS)
    assert "128-bit accesses checked in the SASS: 0 over" in tool.main.summary(usages, [], True)
    assert "not checked (no nvdisasm" in tool.main.summary(usages, [], False)


def test_every_kernel_file_states_a_budget_for_each_of_its_kernels(tool: Any) -> None:
    budgets: dict[str, Any] = {}
    for source in (ROOT / "csrc").glob("*/*.cu"):
        text = source.read_text("utf-8")
        stated = tool.budget.budgets_of(text)
        defined = [name for name in stated if f" {name}(" in text]
        assert list(stated) == defined
        assert len(defined) == text.count('extern "C" __global__')
        budgets |= stated
    assert tool.budget.frame_problems(budgets) == []
