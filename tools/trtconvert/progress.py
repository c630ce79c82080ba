"""How long work reports how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Called as progress(stage, done, total): ``stage`` is a verb for people ("Calibrating"), ``done``
# of ``total`` steps are over; ``total`` is 0 where it is not known. Called from the working thread.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
