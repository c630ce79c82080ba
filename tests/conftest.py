"""Options, markers and paths shared by every test.

The summary of each run names the checks that did not run because the machine has no GPU, and
those on the emulated GPU that did not run because it could not be built. ``--require-gpu`` turns
every one of the former into a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
_NEEDS_GPU = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-gpu",
        action="store_true",
        help="fail, instead of skip, every check that needs an NVIDIA GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts background jobs with SIGINT ignored, and children inherit that: the tests that
    # interrupt a tool would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU with its driver")
    config.addinivalue_line("markers", "exports: exports real models in a Python of its own")
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")
    config.stash[_NEEDS_GPU] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    from visionrt.device import gpu_problem

    problem = gpu_problem(0)
    if not problem:
        return
    config.stash[_NEEDS_GPU].extend(item.nodeid for item in gpu_items)
    if not config.getoption("--require-gpu"):
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason=f"no GPU: {problem}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    if hasattr(config, "workerinput"):
        return
    names = config.stash[_NEEDS_GPU]
    if not names and getattr(config.option, "numprocesses", None):
        # Under xdist only the workers collect; their skips arrive as reports.
        reports = terminalreporter.stats.get("skipped", [])
        names = [r.nodeid for r in reports if "no GPU:" in str(r.longrepr)]
    terminalreporter.section("checks that need a GPU")
    verb = "failed here" if config.getoption("--require-gpu") else "did not run"
    terminalreporter.write_line(f"{len(names)} {verb} for want of a GPU")
    for name in sorted(names):
        terminalreporter.write_line(f"  {name}")
    emulated = {
        report.nodeid: report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and _runs_emulated(report.nodeid)
    }
    if emulated:
        terminalreporter.write_line(f"{len(emulated)} on the emulated GPU did not run")
        for name, reason in sorted(emulated.items()):
            terminalreporter.write_line(f"  {name}: {reason}")


def _runs_emulated(nodeid: str) -> bool:
    path = nodeid.partition("::")[0]
    return "emulation/" in path or "test_emulated_" in path


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is kept in, or taken from, the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIONRT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Two processes a core that never rest."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(2 * (os.cpu_count() or 1))]
    yield
    for other in others:
        other.kill()
        other.wait()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real models and photos."""
    return DATA


@pytest.fixture(scope="session")
def models(data: Path) -> Path:
    """The folder of real models."""
    return data / "models"


@pytest.fixture(scope="session")
def images(data: Path) -> Path:
    """The folder of photos."""
    return data / "images"
