"""What a kernel file states about its kernels, and what follows from it.

Each ``.cu`` file has one line per kernel in its header, long ones continued with ``//``::

    // budget: <kernel> registers<=64 spills=0 shared<=4096 launches=1 wide="load,store"
    //   bytes="formula, reads + writes"

``launches`` is how often the kernel is launched per batch, 1 when left out. ``wide`` names the
128-bit accesses to device memory that the SASS must hold, none when left out. ``bytes`` is an
arithmetic formula over the names of ``REFERENCE``: the bytes that cross the memory bus for one
image when every cache works, so bytes / bandwidth is a floor of the kernel's time.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# A 1080p image letterboxed to 640 x 640, and an 8400 x 84 output of which every anchor passes the
# threshold: the most that a frame of this model can ask for.
REFERENCE: dict[str, float] = {
    "W": 1920,  # image
    "H": 1080,
    "w": 640,  # tensor
    "h": 640,
    "resized_h": 360,  # rows of the tensor that show the image
    "anchors": 8400,
    "classes": 80,
    "candidates": 8400,
    "kept": 300,
    "mask_channels": 32,
    "prototypes": 160 * 160,  # pixels
}

# Bytes per second, as the vendor states them.
BANDWIDTHS = {"H100": 3.35e12, "RTX 4090": 1.0e12, "AGX Orin": 205e9}

# The kernels of one frame of a detector beside its engine, and of one whose preprocess spec asks
# for Pillow's resize.
DETECTOR_FRAMES = {
    "cv2": ("preprocess_cv2", "decode_yolo_columns", "nms_sort", "nms_place", "nms_greedy"),
    "pil": ("preprocess_pil", "decode_yolo_columns", "nms_sort", "nms_place", "nms_greedy"),
}
MAX_LAUNCHES = 5

_LINE = re.compile(r"^//\s*budget:(?P<text>.*(?:\n//[ ]{2,}\S.*)*)", re.MULTILINE)
_BUDGET = re.compile(
    r"(?P<kernel>\w+)\s+registers<=(?P<registers>\d+)\s+spills=(?P<spills>\d+)"
    r"\s+shared<=(?P<shared>\d+)(?:\s+launches=(?P<launches>\d+))?"
    r'(?:\s+wide="(?P<wide>[^"]*)")?\s+bytes="(?P<bytes>[^"]+)"'
)
_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"min": min, "max": max, "ceil": math.ceil}


class BudgetError(ValueError):
    """A budget line that cannot be read, with what was expected."""


@dataclass(frozen=True)
class Budget:
    """What a kernel may use, and the bytes it moves."""

    registers: int
    spills: int
    shared: int
    bytes: str
    launches: int = 1
    wide: tuple[str, ...] = ()

    def floor_us(self, bytes_per_second: float, sizes: Mapping[str, float]) -> float:
        """The least time in microseconds that the memory bus allows."""
        return 1e6 * evaluate(self.bytes, sizes) / bytes_per_second


def evaluate(formula: str, sizes: Mapping[str, float]) -> float:
    """The value of a formula of numbers, names of ``sizes``, ``+ - * /``, min, max and ceil.

    Raises BudgetError for anything else.
    """

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return float(node.value)
        if isinstance(node, ast.Name) and node.id in sizes:
            return float(sizes[node.id])
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _FUNCTIONS
            and not node.keywords
        ):
            return float(_FUNCTIONS[node.func.id](*map(value, node.args)))
        names = ", ".join(sizes)
        raise BudgetError(
            f'expected a formula of numbers, {names}, + - * / and min, max, ceil in "{formula}", '
            f"got {ast.unparse(node)}"
        )

    try:
        return value(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ZeroDivisionError, TypeError) as error:
        raise BudgetError(f'expected a formula in "{formula}": {error}') from error


def budgets_of(source: str) -> dict[str, Budget]:
    """The budgets in a .cu file, by kernel. Raises BudgetError for a line it cannot read."""
    out: dict[str, Budget] = {}
    for line in _LINE.finditer(source):
        text = " ".join(part.lstrip("/ ") for part in line["text"].splitlines())
        match = _BUDGET.fullmatch(text.strip())
        wide = tuple(w.strip() for w in ((match and match["wide"]) or "").split(",") if w.strip())
        if match is None or not set(wide) <= {"load", "store"}:
            raise BudgetError(
                "expected '<kernel> registers<=N spills=N shared<=N [launches=N] "
                f'[wide="load,store"] bytes="formula"\', got {text.strip()!r}'
            )
        kernel = match["kernel"]
        if kernel in out:
            raise BudgetError(f"expected one budget for {kernel}, got two")
        registers, spills, shared = (int(match[key]) for key in ("registers", "spills", "shared"))
        launches = int(match["launches"] or 1)
        out[kernel] = Budget(registers, spills, shared, match["bytes"], launches, wide)
        evaluate(match["bytes"], REFERENCE)
    return out


def floors(budgets: Mapping[str, Budget]) -> list[str]:
    """Lines of a table: bytes and floor of each kernel at REFERENCE, then each detector frame."""
    frames = {
        f"frame, {mode}": [k for k in names if k in budgets]
        for mode, names in DETECTOR_FRAMES.items()
    }
    rows = [(name, [name]) for name in sorted(budgets)] + list(frames.items())
    width = max(len(name) for name, _ in rows)
    head = "  ".join(f"{gpu:>9}" for gpu in BANDWIDTHS)
    out = [f"{'':{width}}  launches  {'bytes':>10}  {head}   (floor in us)"]
    for name, kernels in rows:
        launches = sum(budgets[k].launches for k in kernels)
        moved = sum(evaluate(budgets[k].bytes, REFERENCE) for k in kernels)
        cells = "  ".join(f"{1e6 * moved / speed:>9.2f}" for speed in BANDWIDTHS.values())
        formula = budgets[name].bytes if name in budgets else ""
        out.append(f"{name:{width}}  {launches:>8}  {moved:>10,.0f}  {cells}   {formula}".rstrip())
    return out


def frame_problems(budgets: Mapping[str, Budget]) -> list[str]:
    """What is wrong with the detector frames, in words."""
    out = []
    for mode, kernels in DETECTOR_FRAMES.items():
        out += [f"frame, {mode}: no kernel {k}" for k in kernels if k not in budgets]
        launches = sum(budgets[k].launches for k in kernels if k in budgets)
        if launches > MAX_LAUNCHES:
            out.append(f"frame, {mode}: {launches} launches, budget {MAX_LAUNCHES}")
    return out
