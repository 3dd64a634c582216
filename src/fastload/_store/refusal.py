"""The last net for what the system says where nobody expected it: no memory for a look, a mount that is gone."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._address_space import address_space_refusal
from fastload._store.filesystem import is_no_space, translate_write
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINT = "Check the storage and the limits of this process, then try again"
_NO_FILE = "the system"


@contextmanager
def system_refusals() -> Iterator[None]:
    """Make ours what is left of the system's errors; those of a connection or a pipe stay: they are the caller's own.

    Raises:
        StoreError: names the path, where the system named one.
        MemoryBudgetError: there is no memory.
    """
    try:
        yield
    except MemoryError as exc:
        raise address_space_refusal(0) from exc
    except (ConnectionError, TimeoutError, BlockingIOError):
        raise
    except OSError as exc:
        path = _NO_FILE if exc.filename is None else os.fsdecode(exc.filename)
        if is_no_space(exc):
            raise translate_write(path, exc) from exc
        raise StoreError(path, f"refused ({exc.strerror or exc})", _HINT) from exc
