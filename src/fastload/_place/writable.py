"""Which of this process's memory it may write to: a write elsewhere is no error, it ends the process."""

from __future__ import annotations

from bisect import bisect_right


class WritableMemory:
    """The writable memory of this process, as it was when this was made."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                span, permissions = line.split(" ", 2)[:2]
                if "w" in permissions:
                    self._add(*(int(address, 16) for address in span.split("-")))

    def _add(self, begin: int, end: int) -> None:
        """The kernel lists mappings by address; neighbours are joined, since a tensor may lie in several."""
        if self._ends and self._ends[-1] == begin:
            self._ends[-1] = end
        else:
            self._begins.append(begin)
            self._ends.append(end)

    def holds(self, begin: int, end: int) -> bool:
        """True if all of ``[begin, end)`` may be written to."""
        number = bisect_right(self._begins, begin) - 1
        return number >= 0 and end <= self._ends[number]
