"""Python's cyclic collector, and when it had better not look."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from traceback import clear_frames
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic collection while a million small objects are born, none of them garbage: it would double the time.

    An error on the way lets go of them, as whoever keeps it wants none of them, and collecting would look at each.
    """
    was_enabled = gc.isenabled()
    if was_enabled:  # else another thread has paused it, and may end that at any moment: nobody would do so after us
        gc.disable()
    try:
        yield
    except Exception as exc:
        _forget_locals(exc)
        raise
    finally:
        if was_enabled:
            gc.enable()


def _forget_locals(error: BaseException | None) -> None:
    """Clear what the frames hold that ``error`` and its causes came through."""
    while error is not None:
        clear_frames(error.__traceback__)
        error = error.__cause__
