"""What a load holds besides its readers: the sign that it reads, and the copy that it leaves on the local tier."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self

from fastload._progress import choose_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from fastload._clock import Busy
    from fastload._fetch.bring.through import Copy
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._fetch.deadline import Deadline
    from fastload._format.checkpoint import Shard
    from fastload._progress import Progress, Wish
    from fastload._read.choose import Choice
    from fastload._read.reader import Reader
    from fastload._store.keep.reading import Reading
    from fastload._verify.manifest import ManifestFile


@dataclass(frozen=True, slots=True)
class Held:
    """Let go by :meth:`close`, or by a ``with`` that ends by an error."""

    reading: Reading | None = None
    """Shows others that the snapshot is in use."""
    copy: Copy | None = None
    """Is fed with what is read, and kept on the local tier."""

    @classmethod
    def begin(cls, fetched: Fetched, deadline: Deadline, *, keeps_copy: bool) -> Held:
        """Show that ``fetched`` is being read, and begin its copy, if there shall be one and ``keeps_copy``."""

        def begin() -> Held:
            return cls(fetched.home.begin_reading(), fetched.home.begin_copy() if keeps_copy else None)

        return deadline.within(begin, cls.close)

    def and_later(self, more: Held) -> Held:
        """This, and what was begun after it."""
        return Held(
            more.reading if self.reading is None else self.reading, more.copy if self.copy is None else self.copy
        )

    def telling(self, wish: Wish, total_bytes: int) -> Progress:
        """Whom the load tells how far it is: the caller as he wishes, and by the lease those who wait for the copy."""
        progress = choose_progress(wish, total_bytes)
        return progress if self.copy is None else _Shared(progress, self.copy, total_bytes)

    def close(self) -> None:
        """Let go of both."""
        with ExitStack() as undo:
            for each in (self.reading, self.copy):
                if each is not None:
                    undo.callback(each.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            self.close()


class _Shared:
    """See :meth:`Held.telling`."""

    def __init__(self, progress: Progress, copy: Copy, total_bytes: int) -> None:
        self._progress = progress
        self._copy = copy
        self._total_bytes = total_bytes

    def update(self, done_bytes: int) -> None:
        """See :class:`~fastload._progress.Progress`."""
        self._copy.update(done_bytes, self._total_bytes)
        self._progress.update(done_bytes)

    def close(self) -> None:
        """See :class:`~fastload._progress.Progress`."""
        self._progress.close()


class Resumable(NamedTuple):
    """The shards of which some may come from what the copy has already."""

    anyhow: Collection[int]
    """Whoever had left it: what is wrong of it can be made good."""
    if_proven: Collection[int]
    """Only where the whole was seen to be right when it was left."""


class Tee:
    """Between the readers and the copy; what is on a mount lies below ``root``.

    ::

        source, or what the copy has already ─► proof ─► tensors
                                                  └─► copy ◄─ what other ranks send
    """

    def __init__(
        self, shards: Sequence[Shard], root: str, copy: Copy | None, busy: Busy, proven: Mapping[str, ManifestFile]
    ) -> None:
        """``proven``: the files that have passed the proof of the whole so far, by path."""
        self._proven = proven
        self._shards = shards
        self._root = root
        self._copy = copy
        self._busy = busy

    def resumed(self, choices: Mapping[int, Choice], resumable: Resumable) -> dict[int, Choice]:
        """``choices``, whose readers read only what the copy has not. What it has is yet to be proven."""
        anyhow = {number: choice for number, choice in choices.items() if number in resumable.anyhow}
        proven = {number: choice for number, choice in choices.items() if number in resumable.if_proven}
        return (
            dict(choices)
            | self._around(anyhow, partial(self._resume, needs_proven=False))
            | self._around(proven, partial(self._resume, needs_proven=True))
        )

    def fed(self, choices: Mapping[int, Choice]) -> dict[int, Choice]:
        """``choices``, whose readers feed the copy too."""
        return self._around(choices, self._feed)

    def arriving(self, shard: int, reader: Reader) -> Reader:
        """``reader``, of what another rank sends of ``shard``."""
        return self._feed(self._shards[shard].path, reader)

    def _around(self, choices: Mapping[int, Choice], wrap: Callable[[str, Reader], Reader]) -> dict[int, Choice]:
        def wrapped(choice: Choice) -> Choice:
            return replace(choice, open=lambda file: wrap(file.path, choice.open(file)))

        return dict(choices) if self._copy is None else {number: wrapped(each) for number, each in choices.items()}

    def _resume(self, path: str, reader: Reader, *, needs_proven: bool) -> Reader:
        if self._copy is None:
            return reader
        return self._copy.resume(self._inside(path), reader, needs_proven=needs_proven)

    def _feed(self, path: str, reader: Reader) -> Reader:
        if self._copy is None:
            return reader
        return self._copy.feed(self._inside(path), reader, lambda: self._busy.measure("write"), self._proven)

    def _inside(self, path: str) -> str:
        return os.path.relpath(path, self._root) if os.path.isabs(path) else path
