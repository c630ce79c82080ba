"""Who uses what, and until when: working memory per call, and a back end shared by clones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.backends.base import Backend
from visionrt.errors import UsageError


@dataclass
class Lane:
    """What one call at a time works in.

    Attributes:
        tensor: the input of a full batch.
        runs: the engine bound to the first n images of ``tensor``, by n.
    """

    tensor: NDArray[Any]
    runs: dict[int, Callable[[], Mapping[str, NDArray[Any]]]] = field(default_factory=dict)


class LanePool:
    """Lanes, lent to one call at a time, so that threads never share one.

    A lane is made when all others are busy; there are as many as threads ever called at once.

    Args:
        shape: of the tensor of a full batch.
        dtype: NumPy's name of its element type.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self._shape = shape
        self._dtype = dtype
        self._idle: list[Lane] = []
        self._busy = 0
        self._is_closed = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def take(self) -> Lane:
        """A lane of the caller's own until :meth:`give_back`. Raises UsageError when closed."""
        with self._lock:
            if self._is_closed:
                raise UsageError("an open model", got="a closed one", fix="Load it again.")
            self._busy += 1
            if self._idle:
                return self._idle.pop()
        try:
            return Lane(np.zeros(self._shape, self._dtype))
        except BaseException:
            self._let_go(None)
            raise

    def give_back(self, lane: Lane) -> None:
        """Let the next caller have it."""
        self._let_go(lane)

    def _let_go(self, lane: Lane | None) -> None:
        with self._lock:
            self._busy -= 1
            if self._is_closed:
                self._changed.notify_all()
            elif lane is not None:
                self._idle.append(lane)

    def close(self) -> None:
        """Refuse new calls, and wait for those under way. May be called twice."""
        with self._changed:
            self._is_closed = True
            self._idle.clear()
            self._changed.wait_for(lambda: self._busy == 0)


class SharedBackend:
    """A back end that is closed when its last user lets go."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._users = 0
        self._lock = threading.Lock()

    def acquire(self) -> None:
        """Count one more user."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Count one user less; the last one closes the back end."""
        with self._lock:
            self._users -= 1
            is_last = self._users == 0
        if is_last:
            self.backend.close()
