"""Who uses what, and until when: working memory per call, and a back end shared by clones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionrt.backends.base import Backend
from visionrt.errors import UsageError


class LanePool:
    """Input tensors, lent to one call at a time, so that threads never share one.

    A lane is made when all others are busy; there are as many as threads ever called at once.

    Args:
        shape: of the tensor of a full batch.
        dtype: NumPy's name of its element type.
    """

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self._shape = shape
        self._dtype = dtype
        self._idle: list[NDArray[Any]] = []
        self._busy = 0
        self._is_closed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def lane(self) -> Iterator[NDArray[Any]]:
        """A tensor for the duration of a ``with`` block. Raises UsageError when closed."""
        with self._changed:
            if self._is_closed:
                raise UsageError("an open model", got="a closed one", fix="Load it again.")
            self._busy += 1
            tensor = self._idle.pop() if self._idle else None
        try:
            if tensor is None:
                tensor = np.zeros(self._shape, self._dtype)
            yield tensor
        finally:
            with self._changed:
                self._busy -= 1
                if tensor is not None and not self._is_closed:
                    self._idle.append(tensor)
                self._changed.notify_all()

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
