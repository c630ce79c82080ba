"""The installer of PyCUDA, up to the two-minute build itself, which the emulation's tests do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DEV = Path(__file__).resolve().parents[2] / "tools" / "dev"
sys.path.append(str(DEV))

import cuda_headers  # noqa: E402
import install_pycuda  # noqa: E402


def headers(folder: Path, version: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "cuda.h").write_text(f"/* CUDA */\n#define CUDA_VERSION {version}\n")
    return folder


def test_version_of_headers(tmp_path: Path) -> None:
    assert cuda_headers.version_of(headers(tmp_path / "a", 12060)) == 12060
    assert cuda_headers.version_of(tmp_path) is None
    (tmp_path / "cuda.h").write_text("nothing here")
    assert cuda_headers.version_of(tmp_path) is None


def test_headers_newer_than_the_driver_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyCUDA built with them would link functions that the driver lacks."""
    new, old = headers(tmp_path / "new", 13010), headers(tmp_path / "old", 12040)
    monkeypatch.setattr(cuda_headers, "candidates", lambda: iter([tmp_path, new, old]))
    assert cuda_headers.find_headers() == new
    assert cuda_headers.find_headers(13000) == new  # minor versions are compatible
    assert cuda_headers.find_headers(12020) == old
    assert cuda_headers.find_headers(11080) is None


def test_headers_of_a_toolkit_in_cuda_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    include = headers(tmp_path / "targets" / "x86_64-linux" / "include", 13000)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert cuda_headers.find_headers() == include


@pytest.mark.parametrize(
    ("driver", "package"),
    [
        (None, "nvidia-cuda-runtime==13.*"),
        (13010, "nvidia-cuda-runtime==13.*"),
        (12040, "nvidia-cuda-runtime-cu12==12.*"),
    ],
)
def test_missing_headers_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: int | None, package: str
) -> None:
    asked: list[tuple[str, ...]] = []

    def pip(_: Path, *arguments: str) -> None:
        asked.append(arguments)
        place = "cuda_runtime" if "cu12" in arguments[-1] else "cu13"
        headers(Path(arguments[3]) / "nvidia" / place / "include", driver or 13000)

    monkeypatch.setattr(install_pycuda, "find_headers", lambda _: None)
    monkeypatch.setattr(install_pycuda, "_pip", pip)
    found = install_pycuda.headers_for(driver, Path(sys.executable), tmp_path)
    assert cuda_headers.version_of(found) == (driver or 13000)
    assert [a[-1] for a in asked] == [package]
    assert install_pycuda.headers_for(driver, Path(sys.executable), tmp_path) == found
    assert len(asked) == 1


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_the_stub_makes_the_extension_need_the_real_driver(tmp_path: Path) -> None:
    install_pycuda.make_stub("g++", tmp_path, tmp_path / "stub")
    source, library = tmp_path / "uses.cpp", tmp_path / "libuses.so"
    source.write_text(
        'extern "C" int cuMemAlloc_v2(void);\nint use() { return cuMemAlloc_v2(); }\n'
    )
    command = ["g++", "-shared", "-fPIC", "-Wl,--no-as-needed", str(source), "-L", str(tmp_path)]
    subprocess.run(
        [*command, "-L", str(tmp_path / "stub"), "-lcuda", "-o", str(library)], check=True
    )
    assert b"libcuda.so.1\0" in library.read_bytes()


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
def test_the_profiler_header_fits_cuda_h(tmp_path: Path) -> None:
    include = cuda_headers.find_headers()
    if include is None:
        pytest.skip("no cuda.h on this machine")
    (tmp_path / "cudaProfiler.h").write_text(install_pycuda._PROFILER_HEADER)
    source = tmp_path / "uses.cpp"
    source.write_text(
        "#include <cuda.h>\n#include <cudaProfiler.h>\n"
        'int use() { return cuProfilerInitialize("", "", CU_OUT_CSV) + cuProfilerStart(); }\n'
    )
    # The folder comes first, so that it is this header and not the toolkit's.
    command = ["g++", "-fsyntax-only", "-I", str(tmp_path), "-I", str(include), str(source)]
    subprocess.run(command, check=True)


def test_a_kept_wheel_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def build(_: Any, version: str, __: Any, work: Path) -> Path:
        built.append(1)
        wheel = work / f"pycuda-{version}-cp311.whl"
        wheel.write_bytes(b"wheel")
        return wheel

    monkeypatch.setattr(install_pycuda, "_build", build)
    include = headers(tmp_path / "include", 13000)
    arguments = (Path(sys.executable), "2026.1", include, tmp_path / "cache")
    wheel = install_pycuda.wheel_for(*arguments)
    assert wheel.read_bytes() == b"wheel"
    assert install_pycuda.wheel_for(*arguments) == wheel
    assert len(built) == 1
    other = headers(tmp_path / "other", 12000)
    install_pycuda.wheel_for(Path(sys.executable), "2026.1", other, tmp_path / "cache")
    assert len(built) == 2


def test_a_missing_compiler_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    include = headers(tmp_path / "include", 13000)
    monkeypatch.setattr(install_pycuda, "find_headers", lambda _: include)
    monkeypatch.setattr(install_pycuda.shutil, "which", lambda _: None)
    assert install_pycuda.main(["--cache", str(tmp_path / "cache")]) == 6
    assert "apt-get install g++" in capsys.readouterr().err


def test_a_failing_build_leaves_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    include = headers(tmp_path / "include", 13000)
    monkeypatch.setattr(install_pycuda, "find_headers", lambda _: include)
    cache = tmp_path / "cache"
    arguments = ["--cache", str(cache), "--version", "0.0.0-none"]
    assert install_pycuda.main(arguments) == 5
    text = capsys.readouterr().err
    assert "PyCUDA was not installed" in text
    assert "0.0.0-none" in text
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["lock"]
