"""What is to be loaded, and the checkpoint that was found for it: what the rooms above know of where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fastload._fetch.evidence import NOTHING, Evidence
from fastload._fetch.pace import Pace
from fastload._fetch.record import Left
from fastload._format.select import by_rule
from fastload._read.choose import Choice, choose_reader
from fastload._read.paced import paced
from fastload._read.tally import ProofTally
from fastload._store.ref import name_of
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from fastload._cpus import Cpus
    from fastload._fetch.through import Copy
    from fastload._format.checkpoint import Checkpoint, Shard
    from fastload._format.select import Select
    from fastload._read.reader import File, Reader
    from fastload._store.keep.reading import Reading
    from fastload._store.offer import Offer
    from fastload._verify.manifest import ManifestFile


@dataclass(frozen=True, slots=True)
class Source:
    """What to load, and which part of it."""

    model: str | os.PathLike[str]
    subfolder: str | None = None
    variant: str | None = None
    revision: str | None = None
    select: Select | None = None
    """Who chooses among the files of a folder; None: our own rule, by ``variant``."""

    @property
    def choose(self) -> Select:
        """Chooses among the files of a folder."""
        return by_rule(self.variant) if self.select is None else self.select

    @property
    def name(self) -> str:
        """As the caller called it."""
        text = name_of(self.model)
        return text if self.revision is None else f"{text}@{self.revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A checkpoint whose headers were read and agreed, and where it came from."""

    checkpoint: Checkpoint
    name: str
    """As the caller called it: a path, or a name with its revision."""
    folder: str
    """Where it is; for what is on no mount, the name that the hub has for it."""
    root: str
    """The snapshot's folder, which a subfolder was taken of."""
    tier: str
    commit: str | None = None
    commit_learnt: str | None = None
    remote: Offer | None = None
    """What gives the bytes where no file system does."""
    evidence: Evidence = NOTHING
    tally: ProofTally = field(default_factory=ProofTally)
    """What proving the headers did; the load goes on counting."""
    passed_over: str = ""
    """Which tiers before this one could not give it, and why; empty: there are none."""
    begin_copy: Callable[[], Copy | None] = lambda: None
    """Begins the copy on the local tier, if there shall be one of what is loaded."""
    record: Callable[[Mapping[str, ManifestFile]], Left] = lambda _: Left()
    """Is told the digests of files that were proven whole, when all was."""
    mend_stored: Callable[[], int] = lambda: 0
    """Replaces, on the local tier, the files in which blocks were mended on the way; says how much it read of them."""
    read_elsewhere: Callable[[], Mapping[str, int]] = dict
    """Bytes that were read from other tiers so far, to mend it, by tier."""
    begin_reading: Callable[[], Reading | None] = lambda: None
    """Shows others that it is being read."""
    keep_report: Callable[[Mapping[str, Any]], None] = lambda _: None
    """Is told the facts of a load that was finished."""
    close: Callable[[], None] = lambda: None
    """Lets go of what was opened to find it."""
    wait: Callable[[int], None] | None = None
    """Returns when so many bytes may be read; None: at once."""

    def held_to(self, bytes_per_s: int | None) -> Fetched:
        """The same, whose readers read no faster than that."""
        if bytes_per_s is None:
            return self
        pace = Pace(bytes_per_s)

        def close() -> None:
            pace.close()
            self.close()

        return replace(self, wait=pace.wait, close=close)

    def choose(self, shard: Shard, wanted: str, cpus: Cpus | None = None) -> Choice:
        """The reader for one shard; ``cpus`` as for :func:`~fastload._read.choose.choose_reader`.

        Raises:
            UnsupportedError: one that was asked for by name, for bytes that no file system has.
        """
        choice = self._choose(shard, wanted, cpus)
        if self.passed_over:
            choice = replace(choice, reason=f"{choice.reason}; {self.passed_over}")
        return choice if self.wait is None else paced(choice, self.wait)

    def _choose(self, shard: Shard, wanted: str, cpus: Cpus | None) -> Choice:
        if self.remote is None:
            return choose_reader(shard, wanted, cpus, digests=self.evidence.has_blocks)
        check_hub_reader(wanted)
        return Choice(partial(_open_offered, self.remote), "hub", "it is on no mount", self.remote.depth)


def check_hub_reader(wanted: str) -> None:
    """Raise ``UnsupportedError`` for one that was asked for by name, and reads files of a file system."""
    if wanted != "auto":
        hint = 'Use reader="auto", or bring the model up first: fastload warm'
        raise UnsupportedError(f'reader="{wanted}" cannot read from the hub', hint)


def _open_offered(offer: Offer, file: File) -> Reader:
    return offer.open(next(offered for offered in offer.files if offered.path == file.path))
