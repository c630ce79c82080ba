"""The entry point of ``trtconvert``: says what to install where a library is missing."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from visionrt.errors import MissingDependencyError

TERMINATED = 143
# What the `convert` extra brings, by module name.
_EXTRA = ("click", "google", "onnx", "onnx_ir", "onnxruntime", "onnxslim", "rich")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code."""
    # A polite kill unwinds like Ctrl-C, so that no temporary file or child process stays.
    signal.signal(signal.SIGTERM, _terminate)
    try:
        from trtconvert.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"error: expected the converter's libraries, got no module {error.name}. "
            'Run: pip install "trtconvert[convert]"\n'
        )
        sys.exit(MissingDependencyError.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
