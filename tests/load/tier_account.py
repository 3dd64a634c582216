"""What a process really reads of the files below some folders, counted at the calls that read them."""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_OURS = ("/.fastload/", "/refs/", "/.locks/")
"""What is beside a model: settings and manifests are nobody's bytes."""
_STAGED = "/.fastload/staging/"


@contextmanager
def really_read(roots: Mapping[str, Path], *, beyond: int = 0) -> Iterator[Counter[str]]:
    """Bytes by tier of the files of models below each root, while it is open.

    Not what mappings bring, nor what only asks whether pages are cached. ``beyond``: of a read by ``pread``, which only
    a header is read by that nothing proves, so many bytes count: the rest is in the page cache for the weights.
    """
    counts: Counter[str] = Counter()
    lock, pread, preadv = threading.Lock(), os.pread, os.preadv

    def note(descriptor: int, nbytes: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}").removesuffix(" (deleted)")
        if any(part in path for part in _OURS) and _STAGED not in path:
            return
        for tier, root in roots.items():
            if path.startswith(f"{root}/"):
                with lock:
                    counts[tier] += nbytes

    def read(descriptor: int, nbytes: int, offset: int) -> bytes:
        content = pread(descriptor, nbytes, offset)
        note(descriptor, min(len(content), beyond or len(content)))
        return content

    def read_into(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        count = preadv(descriptor, buffers, offset, flags)
        if not flags & os.RWF_NOWAIT:
            note(descriptor, count)
        return count

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", read)
        patch.setattr(os, "preadv", read_into)
        yield counts
