"""Where a checkpoint was found, and what a load does there: one class for each way in which a model is found.

::

                                           copied   marked as  proof     damage   report  looked at
                                    paced  to local being read recorded  mended   kept    again
    a path ─┬─► BarePath              -       -        -          -        -        -         x
            └─► AtPath                -       -        -          x     on local    -         x
    a name ─┬─► OnLocal               -       -        x          x        x        x         x
            ├─► OnMount               x       x        x          x     on the way  -         x
            └─► OnHub                 x       x        -          -        -        -         -
    another rank of a group ─► AtRank -       -        -          -        -        -         -

What comes from a mount or the hub comes over a line that others use too: so it is paced, and a copy of it may be kept.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastload._fetch.bring.through import begin_copy
from fastload._fetch.checkpoint.beside import InFolder, InOffer
from fastload._fetch.evidence.keyed import held_by_settings
from fastload._fetch.evidence.record import Proof, record_proof
from fastload._fetch.evidence.weigh import manifests_of
from fastload._fetch.pace import pace_of
from fastload._read.choose import Choice, choose_reader
from fastload._read.ledger import Purpose
from fastload._read.pread import check_path
from fastload._store.folder_offer import offer_stored
from fastload._store.keep.reading import Reading
from fastload._store.keep.reports import keep_report
from fastload._store.stored import CachedSnapshot
from fastload.errors import IntegrityError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastload._cpus import Cpus
    from fastload._fetch.bring.through import Copy
    from fastload._fetch.checkpoint.beside import Beside
    from fastload._fetch.checkpoint.by_copy import Serving
    from fastload._fetch.checkpoint.fetched import FetchRequest
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.find.only_hub import HubFound
    from fastload._fetch.mend.repair import Repair
    from fastload._fetch.pace import Pace
    from fastload._read.reader import File, Reader
    from fastload._read.tally import ProofTally
    from fastload._store.hub.tier import HubTier
    from fastload._store.stored import Stored
    from fastload._verify.manifest import ManifestFile

_ATTEMPTS, _PAUSE_S = 3, 5.0
"""So often in a row a hub that refuses is asked for what only the copy needs: the load has its bytes, and its caller
waits."""


class Home:
    """Files are read where they are, and nothing is left there: what more there is, the classes below say."""

    pace: Pace | None = None
    """How fast all readers together may read; None: as fast as they can."""

    def choose(self, file: File, wanted: str, cpus: Cpus | None, *, digests: bool) -> Choice:
        """The reader for one file, not paced yet; see :func:`~fastload._read.choose.choose_reader`.

        Raises:
            UnsupportedError: one that was asked for by name, for bytes that no file system has.
        """
        return choose_reader(file, wanted, cpus, digests=digests)

    def beside(self, top: str, name: str) -> Beside:
        """The file of that name beside the shards, which may not be there; ``top``: the folder, if it is in one."""
        return InFolder(top, name)

    def check_read_twice(self, path: str, model: str) -> None:
        """Raise ``IntegrityError`` where the file at ``path`` must not be read to prove it, and then to load it."""

    def record_command(self, model: str, apart: str) -> str:
        """What makes block digests of ``model`` for the next load; ``apart``: options that keep them apart from it."""
        return f"fastload verify {model} --record{apart}"

    def look_again(self, files: Iterable[File]) -> None:
        """Raise ``IntegrityError`` where a path leads to another file by now than when its header was read."""
        for file in files:
            check_path(file)

    def begin_reading(self) -> Reading | None:
        """Show others that it is being read."""
        return None

    def begin_copy(self) -> Copy | None:
        """Begin the copy on the local tier, if there shall be one of what is loaded."""
        return None

    def mend_stored(self) -> None:
        """Replace, on the local tier, the files in which blocks were mended on the way."""

    def record(self, _: Mapping[str, ManifestFile]) -> bool:
        """Leave, for the next load, the digests of files that were proven whole, when all was; True if it finds any."""
        return False

    def keep_report(self, _: Mapping[str, Any]) -> None:
        """Keep the facts of a load that was finished."""

    def close(self) -> None:
        """Let go of what was opened to find it, and of whoever waits to read."""
        if self.pace is not None:
            self.pace.close()


class BarePath(Home):
    """At a path: nothing was there when it was looked at, so nothing is known of it."""


class AtRank(Home):
    """On the machine of another rank of the group, which reads it and sends the bytes."""

    def look_again(self, _: Iterable[File]) -> None:
        """Its paths are those of another machine."""


class OfFolder(Home):
    """A folder of a file system: what is proven of it is kept for the next load, and what is wrong of it is mended."""

    def __init__(self, stored: Stored, repair: Repair, evidence: Evidence, request: FetchRequest) -> None:
        self._stored = stored
        self._repair = repair
        self._evidence = evidence
        self._request = request

    def mend_stored(self) -> None:
        """See :class:`Home`."""
        self._repair.mend_stored()

    def record(self, proven: Mapping[str, ManifestFile]) -> bool:
        """See :class:`Home`."""

        def take_turn(nbytes: int) -> None:
            self._request.check()
            self._repair.tally.note(Purpose.RECORD, nbytes)

        proof = Proof(proven, take_turn)
        return record_proof(self._stored, self._evidence, proof, manifests_of(self._request.settings))

    def close(self) -> None:
        """See :class:`Home`."""
        super().close()
        self._repair.close()


class AtPath(OfFolder):
    """At a path that the user gave: a folder, or a snapshot of some cache."""


class OnLocal(OfFolder):
    """On the local tier, which also knows who reads it, and remembers how long that took."""

    def begin_reading(self) -> Reading:
        """See :class:`Home`."""
        return Reading(self._stored)

    def keep_report(self, facts: Mapping[str, Any]) -> None:
        """See :class:`Home`."""
        if isinstance(self._stored, CachedSnapshot):
            keep_report(self._stored.layout, self._stored.commit, facts)


class OnMount(OfFolder):
    """On a shared tier: paced, and copied to the local one, where the name means the copy then."""

    def __init__(self, serving: Serving, repair: Repair, evidence: Evidence, request: FetchRequest) -> None:
        super().__init__(serving.stored, repair, evidence, request)
        self.pace = pace_of(request.settings.max_rate)
        self._revision = serving.candidate.moving_revision

    def begin_reading(self) -> Reading:
        """See :class:`Home`."""
        return Reading(self._stored)

    def begin_copy(self) -> Copy | None:
        """See :class:`Home`."""
        request, manifests = self._request, manifests_of(self._request.settings)
        find = held_by_settings(partial(offer_stored, self._stored, manifests), request.settings)
        return begin_copy(find, self._revision, request.settings, request.check, self._repair.tally)


class OnHub(Home):
    """On the hub alone: paced, and copied, as from a mount."""

    def __init__(self, found: HubFound, hub: HubTier, request: FetchRequest, tally: ProofTally) -> None:
        self._offer = found.offer
        self.pace = pace_of(request.settings.max_rate)
        self._revision = found.candidate.moving_revision
        self._hub = hub
        self._request = request
        self._tally = tally

    def choose(self, file: File, wanted: str, cpus: Cpus | None, *, digests: bool) -> Choice:
        """See :class:`Home`."""
        check_hub_reader(wanted)
        return Choice(self._open, "hub", "it is on no mount", self._offer.depth)

    def _open(self, file: File) -> Reader:
        return self._offer.open(next(offered for offered in self._offer.files if offered.path == file.path))

    def beside(self, _: str, name: str) -> Beside:
        """See :class:`Home`."""
        return InOffer(self._offer, name)

    def check_read_twice(self, path: str, model: str) -> None:
        """It would come over the network twice."""
        hint = f"Bring it up first: fastload warm {model}; or use load, or verify=auto"
        raise IntegrityError(path, 0, "a digest of the whole file", "block digests, to stream by", hint)

    def record_command(self, model: str, _: str) -> str:
        """They are made as it is brought up."""
        return f"fastload warm {model}"

    def look_again(self, _: Iterable[File]) -> None:
        """It was read by its commit, which means the same for ever."""

    def begin_copy(self) -> Copy | None:
        """See :class:`Home`."""
        rest = self._offer.asked_less(_ATTEMPTS, _PAUSE_S)
        settings = self._request.settings
        find = held_by_settings(lambda: rest, settings)
        return begin_copy(find, self._revision, settings, self._request.check, self._tally)

    def close(self) -> None:
        """See :class:`Home`."""
        super().close()
        self._hub.close()


def check_hub_reader(wanted: str) -> None:
    """Raise ``UnsupportedError`` for one that was asked for by name, and reads files of a file system."""
    if wanted != "auto":
        hint = 'Use reader="auto", or bring the model up first: fastload warm'
        raise UnsupportedError(f'reader="{wanted}" cannot read from the hub', hint)
