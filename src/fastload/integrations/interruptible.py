"""Ctrl-C while a host waits for a model to be brought, which takes minutes.

``asyncio.run`` takes the first Ctrl-C as a wish to cancel its coroutine when that awaits again. One that waits here
does not await, so the wish would be granted when all has come, and whoever had it would have to press twice.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside of it, the first Ctrl-C is a ``KeyboardInterrupt``, as without asyncio; a handler of others stays."""
    theirs = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not _is_of_asyncio(theirs):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, theirs)


def _is_of_asyncio(handler: object) -> bool:
    """True for a method of the runner, bound to what it runs."""
    method = handler.func if isinstance(handler, functools.partial) else None
    return isinstance(getattr(method, "__self__", None), asyncio.Runner)
