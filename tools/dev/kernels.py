"""Compiles every kernel for every architecture and checks it against its budget.

Each ``.cu`` file states one budget per kernel in its header::

    // budget: <kernel> registers<=64 spills=0 shared<=4096 bytes="formula, reads + writes"

``make kernels`` prints, per kernel and architecture, the registers, the static shared memory and
the spills that ptxas reports, and exits 5 when a budget is exceeded or is missing. It needs nvcc
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nvcc import find_nvcc

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = ("75", "80", "86", "87", "89", "90", "100", "120")

_BUDGET = re.compile(
    r"//\s*budget:\s*(?P<kernel>\w+)\s+registers<=(?P<registers>\d+)\s+spills=(?P<spills>\d+)"
    r'\s+shared<=(?P<shared>\d+)\s+bytes="(?P<bytes>[^"]+)"'
)
_ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)\w*'")
_SPILL = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Budget:
    """What a kernel may use, and the bytes it moves, as a formula for people."""

    registers: int
    spills: int
    shared: int
    bytes: str


@dataclass(frozen=True)
class Usage:
    """What ptxas reports for one kernel on one architecture; shared memory is the static part."""

    kernel: str
    arch: str
    registers: int
    spill_bytes: int
    shared_bytes: int


def budgets_of(source: str) -> dict[str, Budget]:
    """The budgets written in a .cu file, by kernel."""
    return {
        m["kernel"]: Budget(int(m["registers"]), int(m["spills"]), int(m["shared"]), m["bytes"])
        for m in _BUDGET.finditer(source)
    }


def usages_of(ptxas_log: str) -> list[Usage]:
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
            out.append(Usage(*entry, int(match[1]), spill, int(shared[1]) if shared else 0))
            entry = None
    return out


def known_architectures(nvcc: Path) -> list[str]:
    """The shipped architectures that this nvcc can compile for."""
    listing = subprocess.run(
        [str(nvcc), "--list-gpu-code"], capture_output=True, text=True, check=True
    ).stdout.split()
    return [arch for arch in ARCHITECTURES if f"sm_{arch}" in listing]


def compile_one(nvcc: Path, source: Path, arch: str) -> str:
    """The ptxas report for one file and architecture. Raises CalledProcessError on an error."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(nvcc), "-std=c++17", "-O3", "--fmad=false", "-cubin", "-Xptxas", "-v"]
        command += [f"-arch=sm_{arch}", "-I", str(ROOT / "csrc"), str(source)]
        command += ["-o", str(Path(folder) / "out.cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stderr + done.stdout


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
    return out


def table(usages: list[Usage], budgets: dict[str, Budget]) -> str:
    """The table that is printed: a line per kernel, a column of registers per architecture."""
    by_kernel: dict[str, dict[str, Usage]] = defaultdict(dict)
    for usage in usages:
        by_kernel[usage.kernel][usage.arch] = usage
    archs = sorted({u.arch for u in usages}, key=int)
    width = max(map(len, by_kernel), default=6)
    lines = [
        f"{'kernel':{width}}  {'shared':>6}  {'spills':>6}  "
        + "  ".join(f"{'sm_' + a:>6}" for a in archs)
        + "   (registers)"
    ]
    for kernel, per_arch in sorted(by_kernel.items()):
        shared = max(u.shared_bytes for u in per_arch.values())
        spills = max(u.spill_bytes for u in per_arch.values())
        cells = "  ".join(f"{per_arch[a].registers if a in per_arch else '-':>6}" for a in archs)
        lines.append(f"{kernel:{width}}  {shared:>6}  {spills:>6}  {cells}")
    lines.append("")
    lines.append("bytes read and written:")
    lines += [f"{k:{width}}  {budgets[k].bytes}" for k in sorted(by_kernel) if k in budgets]
    return "\n".join(lines)


def main() -> int:
    """Compile, print, check."""
    parser = argparse.ArgumentParser(description="Check every kernel against its budget.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at once")
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        sys.stderr.write(
            "expected nvcc, got none. Install the CUDA toolkit, or: "
            "pip install 'trtconvert[cuda-compiler]'\n"
        )
        return 6
    sources = sorted((ROOT / "csrc").glob("*/*.cu"))
    budgets: dict[str, Budget] = {}
    for source in sources:
        budgets |= budgets_of(source.read_text())
    jobs = [(nvcc, source, arch) for source in sources for arch in known_architectures(nvcc)]
    try:
        with ThreadPoolExecutor(args.jobs) as pool:
            logs = list(pool.map(lambda job: compile_one(*job), jobs))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(error.stderr)
        return 5
    usages = [usage for log in logs for usage in usages_of(log)]
    problems = [rule for u in usages for rule in broken_rules(u, budgets.get(u.kernel))]
    unused = sorted(set(budgets) - {u.kernel for u in usages})
    problems += [f"{name}: a budget for a kernel that does not exist" for name in unused]
    if args.json:
        body = {"kernels": [vars(u) for u in usages], "problems": problems}
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
    else:
        sys.stdout.write(table(usages, budgets) + "\n")
        archs = ", ".join(f"sm_{a}" for a in sorted({u.arch for u in usages}, key=int))
        sys.stdout.write(
            f"\n{len({u.kernel for u in usages})} kernels, {archs}: {len(problems)} over budget\n"
        )
    for line in problems:
        sys.stderr.write(f"over budget: {line}\n")
    return 5 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
