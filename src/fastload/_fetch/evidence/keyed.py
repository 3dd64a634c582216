"""A model that ``warm`` is to bring, or finds in its place, held to the key that ``signature_key`` names.

What a source says of its files is compared with what was signed before a byte of them is asked for: a listing that
contradicts the signature announces what would be refused some hundred GB later. It is an ``IntegrityError``, as when
the bytes themselves turn out so: the signature holds, and the files are other ones. What the source does not say (of a
small file the hub lists git's sha1 alone) is compared as the bytes come. Neither ends the work where another source is
left: of one commit there is one content, so a copy that was changed, or has lost its signature, says nothing of others.

What is there already is not read for that: a load reads it, and compares all of it. Here it is held to the digests that
are noted of it: of its manifest, of the names of blobs, of a download. What is signed by shards or BLAKE nobody has
noted so; then that the signature holds, names every file, and has their length, is all that is known.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.evidence import Evidence, find_evidence
from fastload._fetch.evidence.signed import check_signed, expect, find_wanted, read_key, read_signed, with_all_there
from fastload._fetch.evidence.weigh import check_may_be_off
from fastload._store.layout import RepoLayout, repo_folder
from fastload._store.listing import list_files
from fastload._store.signed_offer import SignedOffer
from fastload._store.stored import PlainFolder
from fastload._store.wanted import Wish, matches
from fastload._verify.difference import Difference, find_contradiction
from fastload._verify.dsse import parse_key
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.signature import SIGNATURE_NAME
from fastload._verify.statement import ShardedFile
from fastload.errors import IntegrityError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.stored import Stored
    from fastload._verify.signature import SignedDigests
    from fastload.options import Settings

_LOST_HINT = "Bring it to the others; or do without it, if the model is one without it: --exclude"
_CHANGED_HINT = "It is not the model that was signed: take it from elsewhere, or have it signed as it is"
_STAYS_HINT = "Remove what is not the model's, or warm into an empty folder"
_HELD_HINT = "It was brought without this key, or was changed since: fastload rm NAME, then warm"


def check_key(settings: Settings, wish: Wish) -> None:
    """Check the key that ``settings`` name, if they name one, before anybody is asked for a model.

    Raises:
        UsageError: there is no such file, or no key in it; or nothing is to be verified; or ``wish`` leaves the
            signature out, without which no load with the key would take what was brought.
        UnsupportedError: the key is of another kind, or ``cryptography`` is missing.
        StoreError: it cannot be read.
    """
    if settings.signature_key is None:
        return
    check_may_be_off(settings)
    parse_key(read_key(settings.signature_key))
    if matches(SIGNATURE_NAME, wish.exclude):
        what = f"exclude leaves out {SIGNATURE_NAME}, and signature_key is set"
        raise UsageError(what, "Bring it too: a load with the key asks for it")


def hold_to_key(offer: Offer, wish: Wish, key_path: str) -> SignedOffer:
    """``offer`` as far as ``wish`` wants it, with what the key in ``key_path`` has signed of its files.

    Of all that is there, its signature alone is read; and its indexes, where what they may name is left out of that.

    Raises:
        SignatureError: there is none, it does not hold, or it leaves out what is wanted.
        IntegrityError: a file is, by what the offer says of it, not what was signed; or is not there.
        UnsupportedError: it is by a certificate.
        UsageError: the key is none.
        FastloadError: what reading raises.
    """
    wanted = {file.path: file for file in wish.choose(offer.files)}
    signed = read_signed(Evidence(kind=offer.evidence, folder=offer.repo, files=wanted), key_path, offer)
    _check_nothing_lost(signed, {file.path for file in offer.files}, wish, offer.repo)
    known = {name: _with_signed(file, signed) for name, file in wanted.items()}
    for name, file in wanted.items():
        unlike = _find_unlike(known[name], file)
        if unlike is not None:
            _refuse(os.path.join(offer.repo, name), unlike, f"as {offer.tier} says", _CHANGED_HINT)
    is_all = all(name in signed.files or name == SIGNATURE_NAME for name, file in wanted.items() if file.size)
    files = tuple(known.get(file.path, file) for file in offer.files)
    return SignedOffer(offer, signed, files, EvidenceKind.SIGNATURE if is_all else offer.evidence)


def check_place(offer: SignedOffer, wish: Wish, folder: str, replaced: Collection[str] = ()) -> None:
    """Check that ``folder`` holds nothing that would stay there beside what is brought, and that nobody signed.

    What is ``replaced`` goes when the new files are in place.

    Raises:
        SignatureError: it does, and a load with the key would refuse what some hundred GB had come to.
        StoreError: it cannot be read.
    """
    if not os.path.isdir(folder):
        return
    passes = {*replaced, *(file.path for file in wish.choose(offer.files))}
    stays = (file for file in list_files(folder) if file.path not in passes)
    check_signed(offer.signed, stays, folder, _STAYS_HINT)


def held_by_settings(find: Callable[[], Offer], settings: Settings) -> Callable[[], Offer]:
    """What gives all that a load's own copy is to have: the load compares what it reads, and that is no tokenizer.

    Nor is there a copy where what lies in its place would stay unsigned: the next load would take it, and refuse it.
    """
    key = settings.signature_key
    if key is None:
        return find

    def find_held() -> Offer:
        offer = hold_to_key(find(), Wish(), key)
        if offer.commit is not None:
            place = RepoLayout(repo_folder(settings.local, offer.repo)).snapshot(offer.commit)
            check_place(offer, Wish(), place)
        return offer

    return find_held


def check_copy(stored: Stored, wish: Wish, key_path: str, manifests: ManifestFolder | None) -> None:
    """Check that what is ``stored`` is, by all that is noted of it, what the key in ``key_path`` has signed.

    ``manifests`` is where a manifest of it may be kept apart. Raises: as :func:`hold_to_key`.
    """
    evidence = with_all_there(find_evidence(stored, manifests=manifests))
    signed = read_signed(evidence, key_path)
    _check_nothing_lost(signed, evidence.files, wish, stored.folder)
    hint = _CHANGED_HINT if isinstance(stored, PlainFolder) else _HELD_HINT
    for name, file in evidence.files.items():
        path = os.path.join(stored.folder, name)
        if evidence.is_misnamed(name):
            raise evidence.explain_misnamed(name).as_error(path, hint)
        unlike = _find_unlike(expect(file, signed), file)
        if unlike is not None:
            _refuse(path, unlike, "by what was noted of it", hint)


def _with_signed(file: OfferedFile, signed: SignedDigests) -> OfferedFile:
    """``file`` by what its tier says of it, by which its blob is called, and by what was signed too.

    What is brought as the signature is the one that was verified, whatever is given when it is asked for again.
    """
    expected = replace(file, sha256=signed.sha256) if file.path == SIGNATURE_NAME else expect(file, signed)
    return replace(file, sha256=expected.sha256 or file.sha256, signed=expected.signed)


def _find_unlike(expected: OfferedFile, known: OfferedFile) -> Difference | None:
    """How what is ``known`` of a file contradicts what is ``expected`` of it; None: as far as that goes, not."""
    if isinstance(expected.signed, ShardedFile) and expected.signed.size != known.size:
        return Difference(f"{known.size:,} bytes", f"{expected.signed.size:,}")
    return find_contradiction(expected, known)


def _refuse(path: str, unlike: Difference, by: str, hint: str) -> None:
    raise IntegrityError(path, 0, f"{unlike.found}, {by}", f"{unlike.expected}, which was signed", hint)


def _check_nothing_lost(signed: SignedDigests, there: Collection[str], wish: Wish, folder: str) -> None:
    """A model that lacks a shard, or its config, may look like another one that is whole."""
    for file in find_wanted(signed, wish):
        if file.path not in there:
            path = os.path.join(folder, file.path)
            raise IntegrityError(path, 0, "no file", "the one that was signed", _LOST_HINT)
