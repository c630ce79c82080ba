"""Compiles every kernel for every architecture and checks it against its budget.

The budgets are lines in the ``.cu`` files; kernel_budget.py says how they are written. ``make
kernels`` prints, per kernel and architecture, the registers, the static shared memory and the
spills that ptxas reports, then the bytes and the floor in microseconds of each kernel. It exits 5
when a budget is exceeded or missing, when a detector frame has too many launches, or when the
machine code lacks a 128-bit access that a budget claims. It needs nvcc and, for the last, nvdisasm
(see tools/dev/nvcc.py), and no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kernel_budget import Budget, BudgetError, budgets_of, floors, frame_problems
from nvcc import find_nvcc, find_tool
from sass import disassemble, wide_accesses

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("75", "80", "86", "87", "89", "90", "100", "120")

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)\w*'")
_SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Usage:
    """What one kernel uses on one architecture; shared memory is the static part.

    ``wide`` is None when the machine code was not read.
    """

    kernel: str
    arch: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    wide: tuple[str, ...] | None = None


def usages_of(ptxas_log: str, wide: Mapping[str, set[str]] | None = None) -> list[Usage]:
    """Parse the output of ``nvcc -Xptxas -v``."""
    out = []
    entry: tuple[str, str] | None = None
    spill = 0
    for line in ptxas_log.splitlines():
        if match := _ENTRY.search(line):
            entry, spill = (match[1], match[2]), 0
        elif match := _SPILL.search(line):
            spill = int(match[1]) + int(match[2])
        elif (match := _USED.search(line)) and entry:
            shared = _SHARED.search(line)
            found = None if wide is None else tuple(sorted(wide.get(entry[0], ())))
            static = int(shared[1]) if shared else 0
            out.append(Usage(*entry, int(match[1]), spill, static, found))
            entry = None
    return out


def known_architectures(nvcc: Path) -> list[str]:
    """The shipped architectures that this nvcc can compile for."""
    listing = subprocess.run(
        [str(nvcc), "--list-gpu-code"], capture_output=True, text=True, check=True
    ).stdout.split()
    return [arch for arch in ARCHITECTURES if f"sm_{arch}" in listing]


def compile_one(nvcc: Path, nvdisasm: Path | None, source: Path, arch: str) -> list[Usage]:
    """What the kernels of one file use on one architecture. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "out.cubin"
        command = [str(nvcc), "-std=c++17", "-O3", "--fmad=false", "-cubin", "-Xptxas", "-v"]
        command += [f"-arch=sm_{arch}", "-I", str(ROOT / "csrc"), str(source), "-o", str(cubin)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        wide = None if nvdisasm is None else wide_accesses(disassemble(nvdisasm, cubin))
        return usages_of(done.stderr + done.stdout, wide)


def broken_rules(usage: Usage, budget: Budget | None) -> list[str]:
    """What is wrong with a usage, in words; empty when the budget is kept."""
    if budget is None:
        return [f"{usage.kernel}: no budget line in its file"]
    out = []
    where = f"{usage.kernel} on sm_{usage.arch}"
    for what, used, allowed in (
        ("registers", usage.registers, budget.registers),
        ("spill bytes", usage.spill_bytes, budget.spills),
        ("bytes of shared memory", usage.shared_bytes, budget.shared),
    ):
        if used > allowed:
            out.append(f"{where}: {used} {what}, budget {allowed}")
    if usage.wide is not None:
        missing = [access for access in budget.wide if access not in usage.wide]
        out += [f"{where}: no 128-bit {access}, which its budget claims" for access in missing]
    return out


def table(usages: Sequence[Usage], budgets: Mapping[str, Budget]) -> str:
    """The table that is printed: a line per kernel, a column of registers per architecture."""
    by_kernel: dict[str, dict[str, Usage]] = defaultdict(dict)
    for usage in usages:
        by_kernel[usage.kernel][usage.arch] = usage
    archs = sorted({u.arch for u in usages}, key=int)
    width = max(map(len, by_kernel), default=6)
    lines = [
        f"{'kernel':{width}}  {'shared':>6}  {'spills':>6}  {'128-bit':>10}  "
        + "  ".join(f"{'sm_' + a:>6}" for a in archs)
        + "   (registers)"
    ]
    for kernel, per_arch in sorted(by_kernel.items()):
        shared = max(u.shared_bytes for u in per_arch.values())
        spills = max(u.spill_bytes for u in per_arch.values())
        claimed = ",".join(budgets[kernel].wide) if kernel in budgets else ""
        cells = "  ".join(f"{per_arch[a].registers if a in per_arch else '-':>6}" for a in archs)
        lines.append(f"{kernel:{width}}  {shared:>6}  {spills:>6}  {claimed or '-':>10}  {cells}")
    return "\n".join([*lines, "", *floors(budgets)])


def summary(usages: Sequence[Usage], problems: Sequence[str], sass_was_read: bool) -> str:
    """The last line that is printed."""
    archs = ", ".join(f"sm_{a}" for a in sorted({u.arch for u in usages}, key=int))
    wide = "checked in the SASS" if sass_was_read else "not checked (no nvdisasm was found)"
    kernels = len({u.kernel for u in usages})
    return f"{kernels} kernels, {archs}; 128-bit accesses {wide}: {len(problems)} over budget"


def main() -> int:
    """Compile, print, check."""
    parser = argparse.ArgumentParser(description="Check every kernel against its budget.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once")
    args = parser.parse_args()
    nvcc, nvdisasm = find_nvcc(), find_tool("nvdisasm")
    if nvcc is None:
        sys.stderr.write(
            "expected nvcc, got none. Install the CUDA toolkit, or: "
            "pip install 'trtconvert[cuda-compiler]'\n"
        )
        return 6
    sources = sorted((ROOT / "csrc").glob("*/*.cu"))
    budgets: dict[str, Budget] = {}
    for source in sources:
        try:
            budgets |= budgets_of(source.read_text())
        except BudgetError as error:
            sys.stderr.write(f"{source.relative_to(ROOT)}: {error}\n")
            return 5
    jobs = [(nvcc, nvdisasm, source, a) for source in sources for a in known_architectures(nvcc)]
    try:
        with ThreadPoolExecutor(args.jobs) as pool:
            usages = [u for found in pool.map(lambda job: compile_one(*job), jobs) for u in found]
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        return 5
    problems = [rule for u in usages for rule in broken_rules(u, budgets.get(u.kernel))]
    unused = sorted(set(budgets) - {u.kernel for u in usages})
    problems += [f"{name}: a budget for a kernel that does not exist" for name in unused]
    problems += frame_problems(budgets)
    if args.json:
        body = {
            "kernels": [vars(u) for u in usages],
            "budgets": {name: vars(b) for name, b in budgets.items()},
            "sass_was_read": nvdisasm is not None,
            "problems": problems,
        }
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
    else:
        sys.stdout.write(table(usages, budgets) + "\n\n")
        sys.stdout.write(summary(usages, problems, nvdisasm is not None) + "\n")
    for line in problems:
        sys.stderr.write(f"over budget: {line}\n")
    return 5 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
