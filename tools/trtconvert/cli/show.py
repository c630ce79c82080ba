"""What the commands print: one JSON object, or tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trtconvert.report import Report

_MIB = 1 << 20
_WIDTH_WITHOUT_TERMINAL = 200


class _Console(Console):
    """A console that leaves it to the caller what to do where the reader of a pipe has gone.

    A capture, too, flushes what was written before.
    """

    def on_broken_pipe(self) -> None:
        """Raise the error, where rich would end the program with exit code 1."""
        raise BrokenPipeError


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def print_warnings(warnings: Iterable[str]) -> None:
    """One line each on stderr."""
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; texts are taken literally, whatever brackets they hold."""
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    # Without a terminal there is no width to keep to: a file or a pipe gets long lines.
    console = _Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    # Captured: what rich writes itself, it may write in several parts.
    with console.capture() as text:
        # A line of its own: a table's title is cut to the table's width.
        console.print(Text(title, style="bold"), soft_wrap=True)
        console.print(table)
    sys.stdout.write(text.get())


def print_report(report: Report, *, verbose: bool) -> None:
    """What was built, and how well it agrees with the original."""
    title = f"{report.engine}: {report.precision}"
    built = [
        (t.target, t.backend, megabytes(t.plan_bytes), f"{t.build_seconds:.1f} s")
        for t in report.targets
    ]
    if built:
        print_table(title, ("target", "backend", "size", "built in"), built)
    rows: list[tuple[str, object]] = [
        ("nodes", ", ".join(f"{n} {p}" for p, n in report.nodes_by_precision.items()))
    ]
    total = sum(report.flops_by_precision.values())
    if total:
        shares = (f"{f / total:.1%} {p}" for p, f in report.flops_by_precision.items())
        rows.append(("FLOPs", ", ".join(shares)))
    if report.calibration is not None:
        c = report.calibration
        rows.append(
            (
                "calibration",
                f"{c['images']} images, {c['method']}, {c['seconds']:.1f} s, "
                f"peak {megabytes(c['peak_rss_bytes'])}",
            )
        )
    if report.search is not None:
        s = report.search
        rows.append(
            (
                "search",
                f"{len(s['raised'])} of {s['suspects']} nodes raised, {s['evaluations']} "
                f"evaluations on {s['images']} images, {s['seconds']:.1f} s",
            )
        )
    if report.subset is not None:
        rows.append(("calibration images", report.subset["how"]))
    if report.confidence is not None:
        c = report.confidence
        rows.append(("confidence", f"{c['fp32']:.3g} → {c['transferred']:.3g} ({c['reason']})"))
    rows += [("edit", said) for said in report.edits]
    rows += list(report.verification.items())
    print_table("verification" if built else title, ("measure", "value"), rows)
    if report.search is not None and report.search["raised"]:
        raised = [
            (r["node"], r["op_type"], f"{r['lowered']} → {r['raised']}", _noise(r))
            for r in report.search["raised"]
        ]
        print_table("raised", ("node", "operator", "precision", "noise it brought"), raised)
    if verbose:
        print_reasons(report.recipe.to_json(), report.reasons)


def print_reasons(
    recipe: Mapping[str, Any],
    reasons: Mapping[str, str],
    confidence: Mapping[str, float] | None = None,
) -> None:
    """The recipe, with the reason for each field that has one, and how sure it is."""
    rows = recipe_rows(recipe, reasons)
    if confidence is None:
        print_table("recipe", ("field", "value", "why"), rows)
        return
    sure = [f"{confidence[name]:.2f}" if name in confidence else "" for name, _, _ in rows]
    columns = ("field", "value", "sure", "why")
    print_table("recipe", columns, [(n, v, c, w) for (n, v, w), c in zip(rows, sure, strict=True)])


def recipe_rows(
    recipe: Mapping[str, Any], reasons: Mapping[str, str]
) -> list[tuple[str, object, str]]:
    """Flattened fields with their values and reasons; labels are counted, not listed."""
    rows: list[tuple[str, object, str]] = []
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            for inner, inner_value in value.items():
                name = f"{key}.{inner}"
                rows.append((name, inner_value, reasons.get(name, reasons.get(key, "default"))))
        elif key == "labels":
            shown = f"{len(value)}: {' | '.join(value[:3])} | …" if value else "none"
            rows.append((key, shown, reasons.get(key, "default")))
        else:
            rows.append((key, value, reasons.get(key, "default")))
    return rows


def megabytes(count: int) -> str:
    """A size for people."""
    return f"{count / _MIB:.1f} MiB"


def _noise(raised: Mapping[str, Any]) -> str:
    if raised["overflows"]:
        return "overflows"
    return "none" if raised["noise_db"] is None else f"{raised['noise_db']:.0f} dB"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, dict)):
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 80 else text[:79] + "…"
    return str(value)
