"""What may prove a file, and when it no longer may: the rules, of facts that others have looked up.

A manifest beside the files of a plain folder, one that is kept apart, and one in a hub's cache are held to what their
tier knows by itself: names of blobs, etags, sizes and times. A load asks what is believed of them, and warns of what is
not; so does whoever copies, who takes no more than a load would. See docs/verification.md.
"""

from __future__ import annotations

import shlex
import stat
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol

from fastload._verify.difference import Digests, find_contradiction, find_difference
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.path import is_loaded, is_vital

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from fastload._verify.manifest import Manifest, ManifestFile

RECORDED = "recorded"
"""The source of a manifest that says what a folder's files were when somebody had them recorded."""
MADE_HERE = "local"
"""The source of a manifest of what another tool brought into a hub's cache."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Verdict(StrEnum):
    """What a manifest is worth for one file."""

    PROVES = "it has the digests of it"
    UNNAMED = "it does not name it"
    OUTDATED = "the file was written since: it is another one, and no damage"
    UNTOLD = "nobody can say whether the file was written since, and no load goes by it"
    CONTRADICTED = "the tier itself knows it by another digest: of such a manifest nothing is believed"


class SeenFile(Digests, Protocol):
    """A file that is there, or should be, and what its tier knows of it."""

    @property
    def path(self) -> str:
        """Relative to the snapshot."""

    @property
    def size(self) -> int:
        """What it has."""

    @property
    def mtime_ns(self) -> int | None:
        """None: it does not change in place, or nobody looked."""

    @property
    def has_digest(self) -> bool:
        """True if a digest of all of it is known."""


@dataclass(frozen=True, slots=True)
class Times:
    """Of one file of a plain folder: when it was written, as it is and as a stamp beside its manifest has noted it."""

    path: str
    now_ns: int | None
    """None: it cannot be looked at. Whoever reads it will say so."""
    noted_ns: Any = None
    """None: the stamp says nothing of it."""
    is_weight: bool = False
    """True if it is called as weights are, in whatever format."""


@dataclass(frozen=True, slots=True)
class Believed:
    """A manifest that only we or root can have written, as far as it still speaks for the files."""

    manifest: Manifest
    kind: EvidenceKind
    """By what the files are known that it proves."""
    outdated: tuple[str, ...] = ()
    """Those that were written since."""
    untold: tuple[str, ...] = ()
    """Those of which nobody can say whether they were, and which no load reads: nothing is known of them either."""
    names_lost: bool = False
    """True if what a load goes by is missed, where it is named and gone."""
    is_closed: bool = False
    """True if it says which weights and indexes there should be: what is there besides is another model."""
    leaves_unknown: bool = False
    """True if weights or indexes are there of which nothing is known by it either."""
    may_be_meant: bool = False
    """True where nobody but the owner of a folder has said what is in it, so that he may say something else."""

    @property
    def unknown(self) -> frozenset[str]:
        """The files that it names, and of which it says nothing any more."""
        return frozenset((*self.outdated, *self.untold))

    @property
    def proven(self) -> dict[str, ManifestFile]:
        """What it says of each file of which it still says something."""
        unknown = self.unknown
        return {file.path: file for file in self.manifest.files if file.path not in unknown}

    def find_lost(self, there: Collection[str]) -> tuple[ManifestFile, ...]:
        """What should be ``there``: without it, it would be another model, or look like one."""
        named = self.manifest.files if self.names_lost else ()
        return tuple(file for file in named if is_vital(file.path) and file.path not in there)


@dataclass(frozen=True, slots=True)
class Contradicted:
    """A manifest of which nothing is believed, since the tier itself says something else of ``path``."""

    path: str
    by: str = "the manifest beside it"
    """What it is called in messages."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A manifest that is there and not believed."""

    path: str
    reason: str
    cure: str = ""
    """What has to be done before a new one is believed there: see :func:`find_cure`."""

    def __str__(self) -> str:
        return f"{self.path} {self.reason}" + (f"; first: {self.cure}" if self.cure else "")


@dataclass(frozen=True, slots=True)
class KeptManifest:
    """A manifest that is kept apart, by us or by root, of the folder it was looked up for."""

    path: str
    manifest: Manifest
    noted: Mapping[str, Any]
    """Size and mtime of each file then."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the files of a snapshot before a manifest that is kept apart is asked."""

    files: Collection[SeenFile]
    deciding: Collection[SeenFile]
    """Those of them that decide what a load gives: weights, and indexes."""
    is_recorded: bool = False
    """True if digests of theirs are no more than what somebody had recorded."""
    is_whole: bool = False
    """True if it is known which files there should be, by a manifest beside them or by their commit."""


def find_distrust(status: tuple[int, int], user: int) -> str | None:
    """Why others than ``user`` and root may have written what has ``status``, a mode and an owner; None: they cannot.

    A block digest is as good as the word of whoever wrote it.
    """
    mode, owner = status
    if stat.S_ISLNK(mode):
        return "is a link"
    if owner not in {0, user}:
        return f"belongs to uid {owner}, who is neither this user nor root"
    return f"may be written by others (uid {owner} owns it)" if mode & OTHERS_MAY_WRITE else None


def find_cure(seen: Iterable[tuple[str, tuple[int, int]]], user: int) -> str:
    """What makes the folders at these paths, which have these statuses, ones in which ``user``'s word counts.

    Empty: they are. A file needs none: a new one takes its place. Each command can be pasted, with nothing that is said
    to people in it: ``as root: chmod go-w /a && chmod go-w /b; then rm /c``.
    """
    steps = [step for path, status in seen for step in _list_steps(shlex.quote(path), status, user)]
    by_whom = groupby(steps, key=itemgetter(0))
    return "; then ".join(who + " && ".join(command for _, command in its) for who, its in by_whom)


def _list_steps(place: str, status: tuple[int, int], user: int) -> Iterator[tuple[str, str]]:
    """Who has to do it, where that is not ``user``, and what."""
    mode, owner = status
    if stat.S_ISLNK(mode):
        yield "", f"rm {place}"
    elif owner not in {0, user} and user != 0:
        yield f"as uid {owner}: ", f"rm -r {place}"  # root's word and ours count, and neither of us wrote it
    else:
        who = "as root: " if owner != user != 0 else ""
        if owner not in {0, user}:
            yield who, f"chown root {place}"
        if mode & OTHERS_MAY_WRITE:
            yield who, f"chmod go-w {place}"


def judge_times(times: Times, *, are_told: bool) -> Verdict:
    """By what was recorded beside a file; ``are_told``: times say what was written since.

    One that is gone was not written: it is missing. One of another length with the same mtime was not either: it is
    damaged. Where the folder was copied without its times, a README or a chat template is edited and need not be
    damaged for that; what a load goes by is.
    """
    if not are_told:
        return Verdict.PROVES if times.is_weight or is_vital(times.path) else Verdict.UNTOLD
    is_later = times.now_ns is not None and times.noted_ns is not None and times.now_ns != times.noted_ns
    return Verdict.OUTDATED if is_later else Verdict.PROVES


def judge_kept(file: SeenFile, listed: ManifestFile | None, noted: Any) -> Verdict:
    """By a manifest that is kept apart; ``noted``: the size and the mtime that the file had then.

    It must have all that the tier knows: what it leaves out cannot speak for that. Of what the tier knows nothing, it
    speaks for what looks as it did.
    """
    if listed is None:
        return Verdict.UNNAMED
    if file.has_digest:
        is_it = find_difference(file, listed) is None and listed.size == file.size
        return Verdict.PROVES if is_it else Verdict.CONTRADICTED
    return Verdict.PROVES if noted == [file.size, file.mtime_ns] else Verdict.OUTDATED


def find_contradicting(files: Iterable[SeenFile], manifest: Manifest) -> tuple[str, ...]:
    """Those of ``files`` that a later download, or the name of a blob, calls by another digest than the manifest's."""
    pairs = ((file, manifest.find(file.path)) for file in files)
    return tuple(f.path for f, listed in pairs if listed is not None and find_contradiction(f, listed) is not None)


def believe_beside(
    manifest: Manifest, times: Iterable[Times], deciding: Iterable[SeenFile] = (), *, are_told: bool
) -> Believed:
    """The manifest in a plain folder.

    Nothing there but the manifest itself says its source. So that decides how strict it is: what an owner has recorded
    he may change, of what was brought all else is damage. What it is worth does not follow from it: without notes of
    a download that name the same digests, it is no more than what its writer has seen.

    Args:
        manifest: by us or by root.
        times: of those of its files that are there.
        deciding: those of them that decide what a load gives, with what notes of a download say.
        are_told: times say what was written since.
    """
    if manifest.source != RECORDED:
        noted = [judge_kept(file, manifest.find(file.path), None) is Verdict.PROVES for file in deciding]
        kind = EvidenceKind.MANIFEST if noted and all(noted) else EvidenceKind.RECORDED
        return Believed(manifest, kind, names_lost=True, is_closed=True)
    judged = [(each.path, judge_times(each, are_told=are_told)) for each in times]
    outdated = tuple(path for path, verdict in judged if verdict is Verdict.OUTDATED)
    untold = tuple(path for path, verdict in judged if verdict is Verdict.UNTOLD)
    is_closed = not any(map(is_loaded, outdated))
    return Believed(
        manifest,
        EvidenceKind.RECORDED,
        outdated,
        untold,
        names_lost=is_closed,
        is_closed=is_closed,
        may_be_meant=True,
    )


def believe_kept(kept: KeptManifest, known: Known) -> Believed | Contradicted:
    """The manifest that is kept apart, if all that is ``known`` and seen of the files agrees.

    It proves as much as was known of the weights: without that, it is what somebody had recorded. What is missing it
    says unless something else does, or weights are there of which nothing is known: then it may be another model.
    """
    manifest = kept.manifest
    judged = {f.path: judge_kept(f, manifest.find(f.path), kept.noted.get(f.path)) for f in known.files}
    contradicted = next((path for path, verdict in judged.items() if verdict is Verdict.CONTRADICTED), None)
    if contradicted is not None:
        return Contradicted(contradicted, kept.path)
    proven = [file for file in known.files if judged[file.path] is Verdict.PROVES]
    telling = [file for file in known.deciding if judged[file.path] is Verdict.PROVES] or proven
    is_proven = bool(telling) and all(file.has_digest for file in telling) and not known.is_recorded
    kind = EvidenceKind.MANIFEST if is_proven else EvidenceKind.RECORDED
    # Not of those that decide: where no weights are left that a load reads, these are whatever else is there.
    loaded = [file for file in known.files if is_loaded(file.path)]
    has_unknown = any(not file.has_digest and judged[file.path] is not Verdict.PROVES for file in loaded)
    names_lost = not known.is_whole and not has_unknown
    return Believed(
        manifest,
        kind,
        tuple(path for path, verdict in judged.items() if verdict is Verdict.OUTDATED),
        names_lost=names_lost,
        leaves_unknown=has_unknown,
        may_be_meant=not known.is_whole and (names_lost or kind is EvidenceKind.RECORDED),
    )
