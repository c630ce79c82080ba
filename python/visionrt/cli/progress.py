"""A progress line on the terminal; silent when stderr is not one."""

from __future__ import annotations

import shutil
import sys
from types import TracebackType

_BAR = 24


class ProgressLine:
    """One line, redrawn in place. Use as a context manager.

    Args:
        total: number of steps.
        enabled: False silences it even on a terminal.
    """

    def __init__(self, total: int, *, enabled: bool = True) -> None:
        self._total = total
        self._enabled = enabled and total > 1 and sys.stderr.isatty()

    def step(self, done: int, text: str) -> None:
        """Show that ``done`` steps are done and what comes next."""
        if not self._enabled:
            return
        filled = _BAR * done // self._total
        bar = "━" * filled + "─" * (_BAR - filled)
        line = f"{bar} {done}/{self._total} {text}"
        columns = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\033[K{line[:columns]}")
        sys.stderr.flush()

    def message(self, text: str) -> None:
        """Print a line of its own above the progress line."""
        if self._enabled:
            sys.stderr.write("\r\033[K")
        sys.stderr.write(f"{text}\n")

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._enabled:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
