"""Results in order from frames that are worked on at the same time."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from visionrt.errors import UsageError, VisionrtError

Frame = TypeVar("Frame")
Result = TypeVar("Result")


def ordered_results(
    submit: Callable[[Frame], concurrent.futures.Future[Result]],
    frames: Iterable[Frame],
    *,
    lookahead: int,
    errors: str,
) -> Iterator[Result | VisionrtError]:
    """Submit frames ahead of the consumer and yield their results in the frames' order.

    ``frames`` is read in the consumer's thread, at most ``lookahead`` frames ahead of what was
    yielded. When the consumer stops early, what has not begun is cancelled and what has is awaited.

    Args:
        submit: starts the work on a frame.
        frames: any iterable, endless ones included.
        lookahead: most frames under way, 1 or more.
        errors: ``raise`` ends the stream at a frame that fails; ``return`` yields its error in
            place of a result and goes on.

    Raises:
        UsageError: another value of ``errors``, ``lookahead`` below 1, or cancelled work.
        VisionrtError: a frame failed; raised where its result would have been.
    """
    if errors not in ("raise", "return"):
        raise UsageError('errors: "raise" or "return"', got=repr(errors), fix="Give one of them.")
    if lookahead < 1:
        raise UsageError("lookahead: 1 or more", got=str(lookahead), fix="Give a larger number.")
    return _ordered(submit, iter(frames), lookahead, errors)


def _ordered(
    submit: Callable[[Frame], concurrent.futures.Future[Result]],
    frames: Iterator[Frame],
    lookahead: int,
    errors: str,
) -> Iterator[Result | VisionrtError]:
    pending: deque[concurrent.futures.Future[Result]] = deque()
    source_error: Exception | None = None
    is_exhausted = False
    try:
        while True:
            while not is_exhausted and len(pending) < lookahead:
                try:
                    pending.append(submit(next(frames)))
                except StopIteration:
                    is_exhausted = True
                except Exception as error:  # noqa: BLE001  raised below, after the frames before it
                    is_exhausted, source_error = True, error
                # A finished result does not wait for more than one frame of a slow source.
                if pending and pending[0].done():
                    break
            if not pending:
                break
            try:
                result: Result | VisionrtError = pending.popleft().result()
            except VisionrtError as error:
                if errors == "raise":
                    raise
                result = error
            except concurrent.futures.CancelledError as error:
                raise UsageError(
                    "an open model",
                    got="one that was closed during the stream",
                    fix="Load it again.",
                ) from error
            yield result
        if source_error is not None:
            raise source_error
    finally:
        # What was cancelled is not waited for: an executor that was shut down never says that it
        # has dropped it.
        concurrent.futures.wait([future for future in pending if not future.cancel()])
        source_error = None  # its traceback holds this frame, and with it the last results
