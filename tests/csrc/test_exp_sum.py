"""The exponential behind a softmax, against extended precision, compiled with several flags."""

from __future__ import annotations

import ctypes
import math
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

HEADER = Path(__file__).resolve().parents[2] / "csrc" / "decode"
COMPILER = shutil.which("gcc") or shutil.which("cc")
ERROR = 1e-11  # what the header states
WRAPPER = """
#include "exp_sum.h"
void exp_all(const double* x, double* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = visionrt_exp(x[i]);
}
double exp_sum(const float* values, size_t n, double peak) {
  return visionrt_exp_sum(values, n, peak);
}
"""
# What a wheel is built with, no vectors at all, and what fuses a product with a sum.
FLAGS = {"O3": [], "O0": ["-O0"]}
if platform.machine() == "x86_64":
    FLAGS |= {"avx2+fma": ["-mavx2", "-mfma"], "avx512": ["-mavx512f", "-mavx512dq"]}

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


NEEDS = {"avx2+fma": ["avx2", "fma"], "avx512": ["avx512f", "avx512dq"]}


def cpu_has(flags: str) -> bool:
    info = Path("/proc/cpuinfo")
    found = info.read_text().split() if info.exists() else []
    return all(name in found for name in NEEDS.get(flags, []))


@pytest.fixture(scope="module", params=list(FLAGS))
def library(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ctypes.CDLL:
    if not cpu_has(request.param):
        pytest.skip(f"this CPU has no {request.param}")
    folder = tmp_path_factory.mktemp("exp")
    (folder / "exp.c").write_text(WRAPPER)
    command = [
        COMPILER or "",
        "-O3",
        "-fno-trapping-math",
        "-Wall",
        "-Werror",
        "-shared",
        "-fPIC",
        f"-I{HEADER}",
    ]
    command += [*FLAGS[request.param], str(folder / "exp.c"), "-o", str(folder / "exp.so")]
    subprocess.run(command, check=True)
    found = ctypes.CDLL(str(folder / "exp.so"))
    found.exp_sum.restype = ctypes.c_double
    return found


def exp_of(library: ctypes.CDLL, x: np.ndarray) -> np.ndarray:
    x, y = np.ascontiguousarray(x, np.float64), np.empty(len(x))
    double = ctypes.POINTER(ctypes.c_double)
    library.exp_all(x.ctypes.data_as(double), y.ctypes.data_as(double), ctypes.c_size_t(len(x)))
    return y


@pytest.fixture
def sum_of(library: ctypes.CDLL) -> Callable[[np.ndarray, float], float]:
    def run(values: np.ndarray, peak: float) -> float:
        values = np.ascontiguousarray(values, np.float32)
        data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        count, highest = ctypes.c_size_t(len(values)), ctypes.c_double(peak)
        return float(library.exp_sum(data, count, highest))

    return run


def test_its_error_is_what_the_header_states(library: ctypes.CDLL) -> None:
    rng = np.random.default_rng(0)
    halves = (np.arange(1021) + 0.5) * -math.log(2)  # where r changes its sign, and is largest
    x = np.concatenate(
        [
            -rng.uniform(0, 708, 100_000),
            -np.exp(rng.uniform(-40, math.log(708), 100_000)),
            *(np.nextafter(halves, side) for side in (-np.inf, np.inf)),
            [-0.0, 0.0, -708.0, np.nextafter(-708.0, 0)],
        ]
    )
    exact = np.exp(x.astype(np.longdouble))
    worst = float(np.max(np.abs(exp_of(library, x) - exact) / exact))
    print(f"worst relative error {worst:.2e}")
    assert worst <= ERROR
    # The series ends at r^9: an error far below its next term would mean that nothing was tested.
    assert worst > 1e-12


def test_its_ends(library: ctypes.CDLL) -> None:
    x = np.array([0.0, -0.0, -708.5, -745.2, -1e300, -np.inf, np.nan])
    one, minus_zero, *small, nan = exp_of(library, x).tolist()
    assert one == minus_zero == 1.0
    # No denormal number, which some CPUs take a hundred times as long for.
    assert all(np.finfo(np.float64).tiny <= value < 4e-308 for value in small)
    assert math.isnan(nan)


@pytest.mark.parametrize("count", [0, 1, 3, 63, 64, 65, 127, 128, 129, 1000, 1001, 4096])
def test_a_sum_of_any_length_is_that_of_its_terms(
    sum_of: Callable[[np.ndarray, float], float], count: int
) -> None:
    rng = np.random.default_rng(count)
    for scale in (0.01, 3, 100, 1e30):
        values = rng.normal(0, scale, count).astype(np.float32)
        peak = float(values.max()) if count else 0.0
        wanted = math.fsum(np.exp(values.astype(np.longdouble) - peak).astype(np.float64))
        assert sum_of(values, peak) == pytest.approx(wanted, rel=ERROR, abs=1e-300)


def test_a_sum_with_infinities_and_nan(sum_of: Callable[[np.ndarray, float], float]) -> None:
    inf = math.inf
    assert sum_of(np.array([1, inf, 2, inf]), inf) == 2.0
    assert sum_of(np.array([-inf, 5, -inf]), 5.0) == 1.0
    assert sum_of(np.full(70, -inf), -inf) == 70.0
    assert math.isnan(sum_of(np.array([1, math.nan, 2]), 2.0))
