"""The comparison as text: a header with its conditions, and a table per model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from precision_judge import COLUMNS
from precision_methods import METHODS

# What the JSON file holds, and one of its ``lines``.
Body = dict[str, Any]
Line = dict[str, Any]
_RESOURCES = ("int8 of conv", "CPU s", "peak MB", "TensorRT")


def report(body: Body) -> str:
    """What ``precision.py`` prints of the results it stores."""
    parts = [*_header(body)]
    for name, reference in body["references"].items():
        facts = ", ".join(f"{v} {k.replace('_reference', '')}" for k, v in reference.items())
        parts += ["", f"{name} (FP32: {facts})"]
        lines = [line for line in body["lines"] if line["model"] == name]
        if lines:
            parts.append(_table(lines))
        there = {(line["peer"], line["method"]) for line in lines}
        absent = [f"{m.peer}, {m.name}" for m in METHODS if (m.peer, m.name) not in there]
        if absent:
            parts.append(f"not run, as it was not asked for: {'; '.join(absent)}")
    return "\n".join(parts)


def _header(body: Body) -> list[str]:
    machine = body["machine"]
    measured = [line for line in body["lines"] if line["status"] == "measured"]
    header = [
        f"Calibrated on {len(body['calibration'])} photos, judged on {len(body['held_out'])} "
        "others against the float32 original, each Q/DQ pair as written, FP16 roundings included.",
        f"CPU seconds and peak memory: of each tool's whole process; {body['cores'] or 'all'} of "
        f"{machine['cores']} cores, {machine['processor']}.",
        "TensorRT: types in the graph's Q/DQ that it does not document for convolutions.",
    ]
    built = [line for line in measured if "rtx" in line]
    if built:
        refused = [line for line in built if line["rtx"] != "builds"]
        names = "; ".join(f"{k['model']} {k['peer']} {k['method']}" for k in refused)
        header.append(
            f"TensorRT-RTX builds {len(built) - len(refused)} of the {len(built)} graphs"
            + (f", and not: {names}." if refused else ".")
        )
    versions: dict[str, dict[str, str]] = {}
    for line in measured:
        versions.setdefault(line["peer"], line["versions"])
    header += [
        f"{peer}: " + ", ".join(f"{package} {number}" for package, number in found.items())
        for peer, found in versions.items()
    ]
    return header


def _table(lines: Sequence[Line]) -> str:
    columns = COLUMNS[lines[0]["task"]]
    heading = ["tool", "method", *(title for _, title, _ in columns), *_RESOURCES]
    rows = [heading, *(_row(line, columns) for line in lines)]
    full = [row for row in rows if len(row) == len(heading)]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )


def _row(line: Line, columns: Sequence[tuple[str, str, str]]) -> list[str]:
    names = [line["peer"], line["method"]]
    if line["status"] != "measured":
        return [*names, f"{line['status']}: {line['reason']}"]
    verdict = [line["rtx"]] if "rtx" in line else []
    return [
        *names,
        *(form.format(line["figures"][key]) for key, _, form in columns),
        f"{line['int8_share']:.0%}",
        f"{line['cpu_seconds']:.1f}",
        f"{line['peak_rss_bytes'] / 1e6:.0f}",
        ", ".join([*verdict, *line["objections"]]) or "-",
    ]
