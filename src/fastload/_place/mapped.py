"""Placing what is mapped: a tensor is a view of the mapping, or a copy that was taken with care.

Between the read that brought its pages in and the copy, the file behind a mapping may be cut or rewritten: touching a
page that is gone is a SIGBUS, and of what was rewritten half may be old. So the kernel takes the copy, which answers an
error where this process would be ended, and the copy is handed out once the file is seen not to have changed.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from fastload._place.host import HostPlacer, room_for_copy
from fastload._place.memory import copy_own_memory
from fastload._place.tensors import is_castable
from fastload._plan.layout import NOWHERE
from fastload._read.file import translate
from fastload._read.populate import map_file
from fastload._read.pread import check_path
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from fastload._plan.layout import Placement
    from fastload._plan.plan import Plan
    from fastload._read.reader import File

_HINT = 'Use reader="auto", which reads'


class MappedPlacer(HostPlacer):
    """Tensors in mapped files; ``copies_all`` if no view of them may leave, since whoever gets it copies it."""

    def __init__(
        self, plan: Plan, file_of: Callable[[int], File], *, cast: torch.dtype | None, copies_all: bool
    ) -> None:
        super().__init__(plan, lambda arena: map_file(file_of(arena)), slot_bytes=0, cast=cast)
        self._file_of = file_of
        self._copies_all = copies_all

    def make_pages(self) -> Iterator[None]:
        """They are the page cache's."""
        return iter(())

    def finish(self) -> None:
        """The last look before all is handed out: what was read first may have changed while the rest was read."""
        for arena in {placement.arena for placement in self._plan.placements} - {NOWHERE}:
            check_path(self._file_of(arena))

    def _own(self, buffer: memoryview, placement: Placement) -> memoryview:
        is_cast = self._cast is not None and is_castable(placement.info)
        if self._copies_all or is_cast or not placement.is_aligned:
            return self._copied(buffer, self._file_of(placement.arena))
        return super()._own(buffer, placement)

    @staticmethod
    def _copied(buffer: memoryview, file: File) -> memoryview:
        copy = room_for_copy(len(buffer))
        try:
            copy_own_memory(copy, buffer)
        except OSError as exc:
            if exc.errno not in (errno.EIO, errno.EFAULT):
                raise UnsupportedError(
                    f'reader="mmap" must copy here, by {exc.filename}: {exc.strerror}', _HINT
                ) from exc
            check_path(file)  # says that it is shorter, where that is why
            raise translate(file.path, OSError(errno.EIO, os.strerror(errno.EIO))) from exc
        check_path(file)
        return copy
