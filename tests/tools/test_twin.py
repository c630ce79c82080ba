"""Which CPU twin an int8 conversion keeps."""

import pytest
from tiny_models import tiny_classifier

from trtconvert import twin
from trtconvert.twin import adds_in_16_bits, with_faster_twin
from trtconvert.typed import TypedGraph


def int8_typed():
    graph = tiny_classifier()
    return TypedGraph("int8", graph, graph, "int8", ())


@pytest.mark.parametrize(
    ("cpu_info", "machine", "saturates"),
    [
        ("flags : fpu avx2 fma", "x86_64", True),
        ("", "x86_64", True),
        ("flags : avx2 avx512f avx512_vnni fma", "x86_64", False),
        ("flags : avx2 avx_vnni", "AMD64", False),
        ("Features : fp asimd", "aarch64", False),
    ],
)
def test_only_x86_without_vnni_saturates(cpu_info, machine, saturates):
    assert adds_in_16_bits(cpu_info, machine) is saturates


def test_a_cpu_that_saturates_keeps_float32(monkeypatch):
    clean = tiny_classifier()
    monkeypatch.setattr(twin, "adds_in_16_bits", lambda info, machine: True)
    monkeypatch.setattr(twin, "_latencies_ms", lambda *graphs: pytest.fail("timed in vain"))
    warnings = []
    found = with_faster_twin(int8_typed(), clean, warnings)
    assert found.twin is clean
    assert found.twin_precision == "fp32"
    (reason,) = warnings
    assert reason.startswith("the CPU twin is float32: without VNNI")


@pytest.mark.parametrize(("int8_ms", "kept"), [(1.0, "int8"), (2.0, "int8"), (3.0, "fp32")])
def test_elsewhere_the_faster_one_is_kept(monkeypatch, int8_ms, kept):
    monkeypatch.setattr(twin, "adds_in_16_bits", lambda info, machine: False)
    monkeypatch.setattr(twin, "_latencies_ms", lambda *graphs: [int8_ms, 2.0])
    warnings = []
    assert with_faster_twin(int8_typed(), tiny_classifier(), warnings).twin_precision == kept
    assert len(warnings) == (kept == "fp32")
