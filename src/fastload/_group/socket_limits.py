"""What it means where the system grants a rank no connection: a limit of descriptors, or memory."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._descriptors import DESCRIPTOR_HINTS
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINTS = DESCRIPTOR_HINTS | {
    errno.ENOBUFS: "The machine has no memory left for connections",
    errno.ENOMEM: "The machine has no memory left for connections",
}


@contextmanager
def opening_connections() -> Iterator[None]:
    """For what makes sockets; other errors of the system pass.

    Raises:
        UnsupportedError: the system grants this process none.
    """
    try:
        yield
    except OSError as exc:
        hint = _HINTS.get(exc.errno or 0)
        if hint is None:
            raise
        raise UnsupportedError(f"the system lets this process open no connection ({exc.strerror})", hint) from exc
