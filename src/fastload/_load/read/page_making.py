"""The worker that makes the pages of the memory that is read into, ahead of those who read past the page cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload._load.read.workplace import Workplace


class PageMaking:
    """See :class:`~fastload._load.read.workplace.Worker`."""

    def __init__(self, at: Workplace) -> None:
        self._placer = at.placer
        self._schedule = at.schedule

    def run(self) -> None:
        """Make them until nothing waits to be read: whoever reads the last extents is as fast."""
        for _ in self._placer.make_pages():
            if self._schedule.is_stopped() or self._schedule.has_begun_all:
                return
