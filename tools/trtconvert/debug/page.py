"""The table of errors by layer as one HTML page: a plot along the graph, and a sortable table.

The page holds everything it needs: nothing is fetched when it is opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from trtconvert.debug.layers import EXACT, MEASURED, NOT_FINITE, SILENT, LayerFigures
from trtconvert.debug.report import DebugReport

_COLORS = {"int8": "#d9480f", "fp16": "#1971c2", "bf16": "#0c8599", "fp32": "#2f9e44"}
_OTHER = "#868e96"
_WIDTH, _HEIGHT = 1200, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 26, 34
_MOST_TICKS = 8
_COLUMNS = (
    ("order", "#"),
    ("node", "node"),
    ("op_type", "operator"),
    ("precision", "precision"),
    ("snr_db", "SNR dB"),
    ("loss_db", "loss dB"),
    ("cosine", "cosine"),
    ("max_error", "max error"),
    ("low", "low"),
    ("high", "high"),
    ("status", "status"),
    ("reason", "reason"),
)
_NUMBERS = frozenset({"order", "snr_db", "loss_db", "cosine", "max_error", "low", "high"})

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:24px;color:#212529;background:#fff}
h1{font-size:20px;margin:0 0 4px}p{margin:4px 0 12px;color:#495057}
svg{width:100%;height:auto;border:1px solid #dee2e6;border-radius:6px;background:#fcfcfd}
svg text{font-size:12px;fill:#495057}
table{border-collapse:collapse;margin-top:16px;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px;text-align:left;border-bottom:1px solid #e9ecef;white-space:nowrap}
td.n{text-align:right}th{position:sticky;top:0;background:#f1f3f5;cursor:pointer}
th[data-up]::after{content:" ▾"}th[data-up="1"]::after{content:" ▴"}
tr:target{background:#fff3bf}i{display:inline-block;width:10px;height:10px;border-radius:50%;
margin:0 5px 0 14px}
"""
# Cells carry what they sort by in data-v; cells without a value go last either way.
_SCRIPT = """
document.querySelectorAll("th").forEach(function(head,column){head.onclick=function(){
var up=head.dataset.up!=="1",body=document.querySelector("tbody");
document.querySelectorAll("th").forEach(function(h){delete h.dataset.up});
head.dataset.up=up?"1":"0";
function value(row){var v=row.cells[column].dataset.v;return head.dataset.number&&v!==""?+v:v}
Array.from(body.rows).sort(function(a,b){var x=value(a),y=value(b);
if(x===""||y==="")return(x==="")-(y==="");
return(x<y?-1:x>y?1:0)*(up?1:-1)}).forEach(function(row){body.appendChild(row)})}});
"""


def html_page(report: DebugReport, layers: Sequence[LayerFigures]) -> str:
    """The page; ``layers`` are the rows of its table, in order. The plot shows every layer."""
    title = f"{report.model}: {report.precision}"
    counts = ", ".join(f"{count} {name}" for name, count in report.nodes_by_precision.items())
    images = f"{report.images} image{'s' * (report.images != 1)}"
    legend = "".join(
        f'<i style="background:{color}"></i>{name}'
        for name, color in (*_COLORS.items(), ("other", _OTHER))
    )
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>Signal to noise at each node's output against float32, on {images}. "
        f"Nodes: {escape(counts)}.{legend}</p>",
        *_plot(report.layers),
        *_table(layers),
        *(f"<p>{escape(warning)}</p>" for warning in report.warnings),
        f"<script>{_SCRIPT}</script></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _plot(layers: Sequence[LayerFigures]) -> Iterator[str]:
    """Order against SNR. What is exact lies on the upper edge, what is lost on the lower one."""
    known = [layer.snr_db for layer in layers if layer.snr_db is not None]
    low = min(0.0, 10 * math.floor(min(known, default=0) / 10))
    high = max(10.0, 10 * math.ceil(max(known, default=0) / 10))
    last = max((layer.order for layer in layers), default=0) or 1

    def place(layer: LayerFigures) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * layer.order / last
        snr = layer.snr_db
        if snr is None:
            return x, _TOP if layer.status == EXACT else _HEIGHT - _BOTTOM
        return x, _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - snr) / (high - low)

    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="SNR along the graph">'
    step = 10 * math.ceil((high - low) / 10 / _MOST_TICKS)
    for tick in range(int(low), int(high) + 1, step):
        y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - tick) / (high - low)
        yield f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e9ecef"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>'
    yield f'<text x="{_LEFT}" y="15">dB (upper edge: exact; cross: not finite or noise)</text>'
    yield f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 10}" text-anchor="end">order in graph</text>'
    measured = [layer for layer in layers if layer.status == MEASURED]
    points = " ".join("{:.1f},{:.1f}".format(*place(layer)) for layer in measured)
    yield f'<polyline points="{points}" fill="none" stroke="#ced4da"/>'
    for layer in layers:
        if layer.status not in (MEASURED, EXACT, NOT_FINITE, SILENT):
            continue
        x, y = place(layer)
        color = _COLORS.get(layer.precision, _OTHER)
        if layer.status in (NOT_FINITE, SILENT):
            mark = f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8" stroke="{color}" '
            mark += 'stroke-width="2" fill="none">'
            end = "</path>"
        else:
            fill = "#fff" if layer.status == EXACT else color
            mark = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{color}">'
            end = "</circle>"
        yield f'<a href="#n{layer.order}">{mark}<title>{_hover(layer)}</title>{end}</a>'
    yield "</svg>"


def _hover(layer: LayerFigures) -> str:
    snr = layer.status if layer.snr_db is None else f"{layer.snr_db:.1f} dB"
    text = f"{layer.order}: {layer.op_type} {layer.node}, {layer.precision}, {snr}"
    return escape(f"{text}\n{layer.reason}")


def _table(layers: Sequence[LayerFigures]) -> Iterator[str]:
    heads = "".join(
        f"<th{' data-number=1' * (key in _NUMBERS)}>{title}</th>" for key, title in _COLUMNS
    )
    yield f"<table><thead><tr>{heads}</tr></thead><tbody>"
    for layer in layers:
        cells = []
        for key, _ in _COLUMNS:
            value = getattr(layer, key)
            if key == "reason" and layer.note:
                value = f"{value} ({layer.note})"
            text = "" if value is None else str(value)
            shown = f"{value:.5g}" if isinstance(value, float) else text
            kind = ' class="n"' if key in _NUMBERS else ""
            cells.append(f'<td{kind} data-v="{escape(text)}">{escape(shown)}</td>')
        yield f'<tr id="n{layer.order}">{"".join(cells)}</tr>'
    yield "</tbody></table>"
