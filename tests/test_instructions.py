"""Instructions per frame outside the engine, counted by callgrind, which no noise can move."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 40
# Of a 373×448 photo for a tensor of 224×224, and of a 10×12 one for 6×6, where all is glue: what
# CPython 3.11 with NumPy 2 was counted to take, and a quarter (glue: 40 %, for other versions).
BUDGETS = {224: 4_110_000, 6: 166_000}


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_a_frame_stays_within_its_instructions(tmp_path: Path) -> None:
    command = [
        *("valgrind", "--tool=callgrind", f"--callgrind-out-file={tmp_path}/out"),
        *("--dump-before=clock_getres*", "--zero-before=clock_getres*"),
        *(sys.executable, str(ROOT / "benchmarks" / "frames_without_engine.py"), str(FRAMES)),
        *map(str, BUDGETS),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for index, (side, budget) in enumerate(BUDGETS.items()):
        # Every second dump is of the frames; the others are of what lies before and between.
        marked = (tmp_path / f"out.{2 * index + 2}").read_text()
        totals = re.search(r"^totals: (\d+)", marked, re.MULTILINE)
        assert totals is not None
        counted = int(totals[1]) / FRAMES
        print(f"{side}: {counted:,.0f} instructions per frame")
        # Far below it, the frames were not what was counted.
        assert 0.4 * budget < counted <= budget, f"side {side}: {counted:,.0f} instructions"
