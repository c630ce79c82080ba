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
        first: the part of ``tensor`` for one image.
    """

    tensor: NDArray[Any]
    runs: dict[int, Callable[[], Mapping[str, NDArray[Any]]]] = field(default_factory=dict)
    first: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.tensor[:1]


class LanePool:
    """Lanes, lent to one call at a time, so that threads never share one.

    A lane is made when all others are busy; there are as many as threads ever called at once.
    Taking and giving back is one atomic operation of a list: a lock is held only to make a lane,
    and around the end.

    Args:
        shape: of the tensor of a full batch.
        dtype: NumPy's name of its element type.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self._shape = shape
        self._dtype = dtype
        self._idle: list[Lane] = []
        self._made = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def take(self) -> Lane:
        """A lane of the caller's own until :meth:`give_back`. Raises UsageError when closed."""
        try:
            lane = self._idle.pop()
        except IndexError:
            return self._new()
        if self._is_closed:
            self.give_back(lane)
            raise _closed()
        return lane

    def give_back(self, lane: Lane) -> None:
        """Let the next caller have it."""
        self._idle.append(lane)
        # Whoever closes looks at the list after the flag is set: one of the two sees the other.
        if self._is_closed:
            with self._changed:
                self._changed.notify_all()

    def _new(self) -> Lane:
        with self._changed:
            if self._is_closed:
                raise _closed()
            # Below the lock, so that none is made behind the back of who closes.
            lane = Lane(np.zeros(self._shape, self._dtype))
            self._made += 1
            return lane

    def close(self) -> None:
        """Refuse new calls, and wait for those under way. May be called twice."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: len(self._idle) == self._made)
            self._idle.clear()
            self._made = 0


def _closed() -> UsageError:
    return UsageError("an open model", got="a closed one", fix="Load it again.")


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
