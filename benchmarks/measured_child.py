"""Runs a command and has the operating system count its CPU time and its largest memory.

Linux carries the resident set of whoever starts a program over into the program's own peak. So
the command is not started from here but by a small process in between: this file, run as a
program, which waits for the command with ``wait4``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """What a command used and said.

    Attributes:
        returncode: negative for a signal, as ``subprocess`` has it.
        cpu_seconds: user and system time, of the processes that it waited for too.
        wall_seconds: from its start to its end.
        peak_rss_bytes: largest resident set of any one of its processes.
        stdout, stderr: what it printed.
    """

    returncode: int
    cpu_seconds: float
    wall_seconds: float
    peak_rss_bytes: int
    stdout: str
    stderr: str


def run_measured(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    cores: int | None = None,
    timeout_s: float | None = None,
) -> Usage:
    """Run a command to its end; blocks.

    Args:
        command: program and arguments.
        environment: of the command; this process's own where None.
        cores: how many of this process's cores it may use; None for all.
        timeout_s: after which it and its children are killed.

    Raises:
        subprocess.TimeoutExpired: they were.
        OSError: the command cannot be started.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "usage.json"
        launcher = [sys.executable, "-I", "-S", __file__, str(report), str(cores or 0), *command]
        with subprocess.Popen(
            launcher,
            env=None if environment is None else dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except BaseException:
                # An interrupt as well: the command must not outlive the benchmark.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if not report.exists():
            raise OSError(f"{command[0]} was not started: {stderr.strip()}")
        return Usage(**json.loads(report.read_text()), stdout=stdout, stderr=stderr)


def _launch(report: Path, cores: int, command: Sequence[str]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    started = time.perf_counter()
    with subprocess.Popen(command) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # macOS counts bytes, Linux KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    counted = {
        "returncode": process.returncode,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - started,
        "peak_rss_bytes": usage.ru_maxrss * unit,
    }
    report.write_text(json.dumps(counted))


if __name__ == "__main__":
    _launch(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
