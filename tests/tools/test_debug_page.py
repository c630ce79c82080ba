"""The table of layers, sorted and as a page."""

from __future__ import annotations

import re

import pytest
from page_parser import Page

from trtconvert.debug.layers import LayerFigures, sort_layers
from trtconvert.debug.page import html_page
from trtconvert.debug.report import DebugReport


def layer_of(order, status="measured", precision="fp16", **figures):
    return LayerFigures(order, f"n{order}", "Conv", precision, "why", status, **figures)


LAYERS = [
    layer_of(0, "exact", max_error=0.0),
    layer_of(1, snr_db=40.0, loss_db=1.0, max_error=5.0),
    layer_of(2, "not mapped", note="n2: gone"),
    layer_of(3, snr_db=20.0, loss_db=-3.0, max_error=1.0, precision="int8"),
    layer_of(4, "not finite"),
    layer_of(5, snr_db=30.0, loss_db=9.0, max_error=2.0, precision="fp32"),
]


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("snr", [4, 3, 5, 1, 0, 2]),
        ("loss", [4, 5, 1, 3, 0, 2]),
        ("max", [4, 1, 5, 3, 0, 2]),
        ("order", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_sorting_puts_the_worst_first(by, order):
    assert [layer.order for layer in sort_layers(LAYERS[::-1], by)] == order


def page_of(layers):
    return DebugReport("dir/<b>.onnx", "int8", 2, layers, {"fp16": 3, "int8": 1}, ["watch & see"])


def test_the_page_stands_alone_and_shows_every_layer():
    text = html_page(page_of(LAYERS), sort_layers(LAYERS, "snr"))
    page = Page(text)
    assert page.open == []
    assert "http" not in text
    assert "@import" not in text
    assert all(link.startswith("#") for link in page.links)
    # A dot for what has a ratio or is exact, a cross for what is not finite.
    assert page.tags.count("circle") == 4
    assert page.tags.count("tr") == 1 + len(LAYERS)
    assert re.findall(r'<tr id="n(\d)"', text) == list("435102")
    assert "n3, int8, 20.0 dB" in text
    assert "dir/&lt;b&gt;.onnx" in text
    assert "watch &amp; see" in text
    assert "n2: gone" in text


def test_places_in_the_plot():
    text = html_page(page_of(LAYERS), LAYERS)
    dots = {
        int(order): (float(x), float(y), fill)
        for order, x, y, fill in re.findall(
            r'<a href="#n(\d)"><circle cx="([\d.]+)" cy="([\d.]+)" r="4" fill="(#\w+)"', text
        )
    }
    # Left to right in the graph's order; the higher the ratio, the higher the dot.
    assert dots[0][0] < dots[1][0] < dots[3][0] < dots[5][0]
    assert dots[0][1] <= dots[1][1] < dots[5][1] < dots[3][1]
    assert dots[1][1] - dots[5][1] == pytest.approx(dots[5][1] - dots[3][1], abs=0.2)
    assert len({dots[1][2], dots[3][2], dots[5][2]}) == 3
    assert html_page(page_of([]), [])
