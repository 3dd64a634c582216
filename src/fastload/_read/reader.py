"""The seam between a plan and storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from fastload._format.checkpoint import FileIdentity


class File(Protocol):
    """What a reader must know of a file, such as a :class:`~fastload._format.checkpoint.Shard`."""

    @property
    def path(self) -> str:
        """Absolute."""

    @property
    def identity(self) -> FileIdentity:
        """The file's when it was planned for; another one is an error."""


@dataclass(frozen=True, slots=True)
class PlainFile:
    """A file that is no shard."""

    path: str
    identity: FileIdentity


class Reader(Protocol):
    """Fills memory from one open file. Several threads may call :meth:`read_into` at once."""

    @property
    def name(self) -> str:
        """``direct``, ``buffered``, … as a report names it."""

    @property
    def alignment_bytes(self) -> int:
        """1: any buffers, one after another. Else: one buffer whose address and length are multiples of it."""

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Fill ``buffers`` with the file's bytes from ``offset`` on; a buffer may reach past the end of the file.

        Raises:
            IntegrityError: the file ended early or changed since its header was read.
            StoreError: it cannot be read.
            UnsupportedError: this reader cannot serve this file; nothing was delivered.
        """

    def check_path(self) -> None:
        """Raise ``IntegrityError`` if the path no longer leads to this file; called when all was read."""

    def close(self) -> None:
        """Give the descriptor back. No read may be under way."""


@runtime_checkable
class GradualReader(Reader, Protocol):
    """One whose bytes take their time, so that what has come should not wait for the rest."""

    def read_each(self, offset: int, buffers: Sequence[memoryview]) -> Iterator[int]:
        """As :meth:`~Reader.read_into`, and give each buffer's number as soon as it is full."""


class Attempt(Protocol):
    """A read that somebody carries out meanwhile, who writes to its buffer until it was finished or abandoned."""

    def finish(self) -> bool:
        """Wait for it; False where it did not bring all: then it is read in the ordinary way, which says why.

        Raises:
            IntegrityError: the file changed since its header was read.
            StoreError: it cannot be looked at.
        """

    def abandon(self) -> None:
        """Its bytes are not wanted any more."""


def begin_read(reader: Reader, offset: int, buffer: memoryview) -> Attempt | None:
    """Have ``buffer`` filled from ``offset`` on meanwhile, as by :meth:`~Reader.read_into`; None: that cannot be now.

    A method ``begin`` says which can. To recognise a protocol takes 75 µs and more, for each extent and wrapper.
    """
    begin: Callable[[int, memoryview], Attempt | None] | None = getattr(reader, "begin", None)
    return None if begin is None else begin(offset, buffer)


OpenReader = Callable[[File], Reader]
"""Opens a file; raises ``UnsupportedError`` where this kind of reader cannot serve it."""
