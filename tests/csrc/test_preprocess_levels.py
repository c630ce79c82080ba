"""Every instruction-set level that this processor runs gives the bits of the scalar loops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import preprocess_reference as reference
import pytest

from visionrt import _core
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec

VECTOR_LEVELS = _core.cpu_levels()[1:]


@pytest.fixture(autouse=True)
def _level_is_restored() -> Iterator[None]:
    before = _core.cpu_level()
    yield
    _core.use_cpu_level(before)


def run_at(level: str, spec: PreprocessSpec, images: list[np.ndarray], color: str) -> np.ndarray:
    _core.use_cpu_level(level)
    return Preprocessor(spec)(images, color=color)


@pytest.mark.skipif(not VECTOR_LEVELS, reason="this processor has the scalar level only")
@pytest.mark.parametrize("interpolation", ["cv2", "pil"])
@pytest.mark.parametrize(("longest", "count"), [(24, 7000), (70, 3000)])
def test_random_geometries_equal_the_scalar_level(interpolation, longest, count):
    cases = reference.random_cases(count, count, longest, interpolation=interpolation)
    for spec, images, color in cases:
        expected = run_at("scalar", spec, images, color)
        for level in VECTOR_LEVELS:
            got = run_at(level, spec, images, color)
            # As bytes: NaN equals NaN, and -0 differs from 0.
            assert got.tobytes() == expected.tobytes(), (level, spec, [i.shape for i in images])


def test_the_scalar_level_equals_opencv_and_pillow():
    for interpolation in ("cv2", "pil"):
        for spec, images, color in reference.random_cases(5, 200, 64, interpolation=interpolation):
            got = run_at("scalar", spec, images, color)
            np.testing.assert_array_equal(got, reference.tensor(spec, images, color))


def test_a_level_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="expected a level of this processor, scalar"):
        _core.use_cpu_level("avx1024")
    assert _core.cpu_level() in _core.cpu_levels()


READ_LEVEL = "from visionrt import _core; print(_core.cpu_level())"
PREPARE = """
from visionrt.errors import UsageError
from visionrt.preprocess import Preprocessor
from visionrt.spec import PreprocessSpec
try:
    Preprocessor(PreprocessSpec())
except UsageError as error:
    print(error)
"""


def level_in_a_process_with(
    variable: str, code: str = READ_LEVEL
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VISIONRT_CPU_LEVEL": variable},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_variable_names_a_level_or_is_passed_over():
    assert level_in_a_process_with("scalar").stdout.strip() == "scalar"
    missing = next(n for n in ("neon", "avx2") if n not in _core.cpu_levels())
    for variable in ("", missing):
        assert level_in_a_process_with(variable).stdout.strip() == _core.cpu_levels()[-1]


def test_a_misspelt_variable_is_an_error():
    done = level_in_a_process_with("avx-2", PREPARE)
    assert done.returncode == 0, done.stderr
    assert "a level of CPU instructions in VISIONRT_CPU_LEVEL, got 'avx-2'" in done.stdout
