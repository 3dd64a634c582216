"""Reads a file of the hub, any part of it by any thread: the third kind of storage beside ``direct`` and ``buffered``.

Each read is one request for a range, streamed into the memory it is for. What breaks off goes on at the byte it came
to. The hub redirects to a signed link that expires: it is kept as long as it serves, then asked for again. A server
that answers a range with the whole file is read in file order instead (:mod:`~fastload._store.hub.sequential`).
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from fastload._store.hub.answer import PORTAL_HINT, MissingError, check_answer
from fastload._store.hub.body import Body, Target, Transfers
from fastload._store.hub.failure import without_query
from fastload._store.hub.retry import Attempts, TransientError
from fastload._store.hub.sequential import SequentialStream
from fastload.errors import HubError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._store.hub.wire import Answer, Wire

_EXPIRED = frozenset({400, 401, 403, 404, 410})
"""How storages refuse a signed link that was good once; S3 calls an ExpiredToken a bad request."""
_PARTIAL, _NOT_SATISFIABLE = 206, 416
_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d{1,19})-(?P<last>\d{1,19})/(?P<size>\d{1,19}|\*)")
_OTHER_FILE = "The file there is not the one that the hub lists: try again, or check the mirror (HF_ENDPOINT)"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository at a commit."""

    url: str
    """At the endpoint; not where it redirects to."""
    repo: str
    size: int


class HubReader:
    """Reads one file over HTTP; see :class:`~fastload._read.reader.Reader`."""

    name = "hub"
    alignment_bytes = 1

    def __init__(self, wire: Wire, file: RemoteFile) -> None:
        self._wire = wire
        self._file = file
        self._transfers = Transfers(wire, file.url)
        self._stream = SequentialStream(self._open_whole, self._transfers, file.size)
        self._has_ranges = True
        self._link: str | None = None
        """Where the hub sends us, as long as it serves."""

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`; raises as :meth:`read_each`."""
        deque(self._fill([Target(offset, buffers, self._file.size)]), maxlen=0)

    def read_each(self, offset: int, buffers: Sequence[memoryview]) -> Iterator[int]:
        """See :class:`~fastload._read.reader.GradualReader`: one request, as long as nothing breaks off.

        Raises:
            IntegrityError: the server has another file than the hub lists.
            AuthError: the hub refuses it.
            HubError: it does not give it, or :meth:`close` was called meanwhile.
        """
        begins = accumulate(map(len, buffers), initial=offset)
        return self._fill([Target(at, [buffer], self._file.size) for at, buffer in zip(begins, buffers, strict=False)])

    def _fill(self, targets: Sequence[Target]) -> Iterator[int]:
        """Fill targets that follow one another, and give the number of each that is full."""
        wanted = [number for number, target in enumerate(targets) if target.wanted_bytes]
        attempts = Attempts(self._wire.patience, self._transfers.stopped)
        full = 0
        while full < len(wanted):
            self._transfers.check()
            before = targets[wanted[full]].offset
            try:
                for _ in self._read([targets[number] for number in wanted[full:]]):
                    full += 1
                    yield wanted[full - 1]
            except MissingError as exc:
                raise HubError(self._file.url, "not there any more", "The repository was changed or deleted") from exc
            except TransientError as failure:
                if full == len(wanted):
                    break
                if targets[wanted[full]].offset > before:
                    attempts.progressed()
                else:
                    self._link = None  # perhaps another host is better
                attempts.wait_after(failure)
        yield from sorted(set(range(len(targets))).difference(wanted))  # empty, or past the end of the file

    def check_path(self) -> None:
        """Nothing to check: a commit's files never change."""

    def close(self) -> None:
        """Stop; reads that are under way in other threads end with an error."""
        self._transfers.stop()
        self._stream.close()

    def _read(self, targets: Sequence[Target]) -> Iterator[None]:
        """What they lack, by one request; each that is full is told of."""
        if not self._has_ranges:
            yield from self._read_in_turn(targets)
            return
        first, last = targets[0].offset, targets[-1].end - 1
        answer = self._ask({"Range": f"bytes={first}-{last}"})
        body = Body(answer, self._transfers)
        try:
            if self._is_range(answer, first, last):
                with self._transfers.watch(body):
                    for target in targets:
                        body.pour(target)
                        yield
                body.finish()
                return
        except BaseException:
            body.drop()
            raise
        self._has_ranges = False
        self._stream.offer(body)
        yield from self._read_in_turn(targets)

    def _read_in_turn(self, targets: Sequence[Target]) -> Iterator[None]:
        for target in targets:
            self._stream.read(target)
            yield

    def _ask(self, headers: dict[str, str]) -> Answer:
        """The answer for this file that has content: from where the hub sent us before, or sends us now."""
        link = self._link
        if link is not None:
            answer = self._transfers.ask(link, headers)
            if answer.status not in _EXPIRED:
                return self._checked(answer)
            answer.discard()
        answer = self._checked(self._transfers.ask(self._file.url, headers))
        self._link = None if self._wire.is_ours(answer.url) else answer.url
        return answer

    def _checked(self, answer: Answer) -> Answer:
        """``answer``, if it has content; else it is done with."""
        try:
            self._check(answer)
        except BaseException:
            answer.drop()
            raise
        return answer

    def _check(self, answer: Answer) -> None:
        if answer.status == _NOT_SATISFIABLE:
            found = f"a file without that part ({answer.headers.get('Content-Range', 'no size given')[:80]!r})"
            raise IntegrityError(self._file.url, self._file.size, found, f"{self._file.size:,} bytes", _OTHER_FILE)
        if answer.status in _EXPIRED and not self._wire.is_ours(answer.url):
            # The hub let us through; that its storage does not is between the two, and may pass.
            reason = f"the storage that the hub sends us to refuses its link (status {answer.status})"
            raise TransientError(without_query(answer.url), reason, "Check this machine's clock and proxy")
        check_answer(answer.status, answer.headers, self._wire.asked(self._file.url, self._file.repo, answer))

    def _is_range(self, answer: Answer, first: int, last: int) -> bool:
        """True if the body is the range that was asked for, False if it is the whole file."""
        if answer.status != _PARTIAL:
            self._check_whole(answer)
            return (first, last) == (0, self._file.size - 1)
        text = answer.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.fullmatch(text.strip())
        found = (int(match["first"]), int(match["last"])) if match else None
        if found != (first, last) or (match and match["size"] not in {"*", str(self._file.size)}):
            expected = f"'bytes {first}-{last}/{self._file.size}'"
            raise IntegrityError(self._file.url, first, f"the range {text[:80]!r}", expected, _OTHER_FILE)
        if answer.length is not None and answer.length != last + 1 - first:
            reason = f"it announces {answer.length:,} bytes for a range of {last + 1 - first:,}"
            raise TransientError(self._file.url, reason, "Check the proxy or mirror between")
        return True

    def _check_whole(self, answer: Answer) -> None:
        is_page = answer.headers.get("Content-Type", "").startswith("text/html")
        if answer.length == self._file.size or (answer.length is None and not is_page):
            return
        what = "a web page" if is_page else f"{answer.length or 0:,} bytes"
        reason = f"it answered with {what} instead of the file of {self._file.size:,} bytes"
        raise TransientError(self._file.url, reason, PORTAL_HINT)

    def _open_whole(self) -> Body:
        answer = self._ask({})
        try:
            self._check_whole(answer)
        except BaseException:
            answer.drop()
            raise
        return Body(answer, self._transfers)
