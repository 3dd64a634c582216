"""Evidence by signature: what the holder of a key says the files are, and nothing else counts.

With ``signature_key`` set, a snapshot without a signature by that key is refused, and so is any weight that the
signature leaves out. The signed digests become what the load compares with, in the pass that it makes anyway.

The block digests of a manifest beside the weights do not count then: it came the way they came, and one with the
signed sha256 and other blocks would prove other bytes. What is kept in ``manifests`` did not come with them: we, or
root, wrote it when a whole file had just been found to have that sha256. So where it has the signed one its blocks do
count. What was signed by shards or BLAKE is compared in order, each time: no manifest speaks of these digests.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.left_unsigned import check_not_named
from fastload._read.file import read_small_file
from fastload._store.directory import contained, containment_root
from fastload._store.listing import is_content, list_files
from fastload._store.offer import OfferedFile
from fastload._store.offered import read_whole
from fastload._store.wanted import Wish
from fastload._verify.dsse import MAX_BUNDLE_BYTES
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.path import is_vital
from fastload._verify.signature import SIGNATURE_NAME, find_unsigned, verify_bundle
from fastload._verify.statement import WholeFile
from fastload.errors import FormatError, SignatureError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.offer import Offer
    from fastload._verify.manifest import ManifestFile
    from fastload._verify.signature import SignedDigests
    from fastload._verify.trust import KeptManifest

_ALL = Wish()
_MAX_KEY_BYTES = 64 << 10  # 64 KiB
_HINT = "Sign it with the key (model_signing sign), set the right signature_key, or unset it"


def by_signature(
    evidence: Evidence,
    key_path: str,
    *,
    remote: Offer | None = None,
    kept: KeptManifest | None = None,
    brought: Wish = _ALL,
) -> Evidence:
    """``evidence``, as far as the key in ``key_path`` has signed it; with the blocks of ``kept``, where these agree.

    ``brought``: which of the signed files somebody wanted there.

    Raises:
        SignatureError: there is no signature, it does not hold, or it leaves out what would be loaded.
        UnsupportedError: it is by a certificate.
        UsageError: the key is none.
    """
    if remote is None:
        evidence = with_all_there(evidence)
    signed = read_signed(evidence, key_path, remote)
    files = {name: expect(file, signed) for name, file in evidence.files.items()}
    if kept is not None:
        files = {name: _with_blocks(file, kept.manifest.find(name)) for name, file in files.items()}
    files |= {file.path: expect(file, signed) for file in _find_lost(signed, files, brought)}
    hints = {name: file.blocks for name, file in evidence.files.items() if file.blocks is not None}
    return replace(
        evidence,
        kind=EvidenceKind.SIGNATURE,
        files=files,
        is_closed=remote is None,
        may_be_meant=False,
        hints=hints,
        misnamed={},
    )


def with_all_there(evidence: Evidence) -> Evidence:
    """``evidence``, with what a manifest passes over and is there, such as a signature that came later.

    Nor is a file empty because a manifest says so: what is empty need not be signed.
    """
    there = {file.path: file for file in list_files(evidence.folder)}
    noted = evidence.files
    not_empty = {path: file for path, file in there.items() if file.size and path in noted and not noted[path].size}
    return replace(evidence, files={**there, **noted, **not_empty})


def read_signed(evidence: Evidence, key_path: str, remote: Offer | None = None) -> SignedDigests:
    """What the key in ``key_path`` has signed, all files of ``evidence`` among it.

    Raises:
        SignatureError, UnsupportedError, UsageError: as :func:`by_signature` says.
    """
    path = os.path.join(evidence.folder, SIGNATURE_NAME)
    signed = verify_bundle(_read_bundle(path, evidence, remote), read_key(key_path), path=path)
    check_signed(signed, evidence.files.values(), path, _HINT)
    check_not_named(evidence, signed, remote)
    return signed


def check_signed(signed: SignedDigests, files: Iterable[OfferedFile], path: str, hint: str) -> None:
    """Check that ``signed`` leaves out nothing of ``files`` that should be signed; an empty one need not be.

    Raises:
        SignatureError: it does, of the model at ``path``; with that ``hint``.
    """
    unsigned = find_unsigned(signed, [file.path for file in files if file.size])
    if unsigned:
        found = f"{', '.join(map(quoted, unsigned[:5]))}, which the signature leaves out"
        raise SignatureError(path, found, "a signature over every file", hint)


def find_wanted(signed: SignedDigests, wish: Wish) -> list[OfferedFile]:
    """What was signed and ``wish`` wants; no part of the model is what ``hf download`` had left in the folder."""
    named = (OfferedFile(path=name, size=0) for name in signed.files)
    return [file for file in wish.choose(named) if is_content(file.path)]


def _find_lost(signed: SignedDigests, there: Collection[str], brought: Wish) -> list[OfferedFile]:
    """What was signed, and should be ``there``: what ``warm`` takes, if it was ``brought``; no other tool's notes.

    What a load reads is missed whoever left it out: without its config a quantised model looks like another one, and
    whoever removes that could also note that nobody wanted it.
    """
    wanted = {file.path for file in find_wanted(signed, brought)}
    named = Wish().choose(OfferedFile(path=name, size=0) for name in signed.files)
    return [file for file in named if file.path not in there and (is_vital(file.path) or file.path in wanted)]


def read_key(path: str) -> bytes:
    """What ``signature_key`` names.

    Raises:
        UsageError: no file, no regular one, or one far larger than a key: the setting is wrong, and not the model.
        StoreError: it cannot be read.
    """
    try:
        return read_small_file(path, _MAX_KEY_BYTES)
    except FormatError as exc:
        what = f"signature_key is {path!r}: found {exc.found}; expected the signer's public key, a file in PEM"
        raise UsageError(what, "Give the path of that file, and check that its volume is mounted") from exc


def _with_blocks(file: OfferedFile, kept: ManifestFile | None) -> OfferedFile:
    is_it = kept is not None and kept.sha256 == file.sha256
    return replace(file, size=kept.size, blocks=kept.blocks) if kept is not None and is_it else file


def _read_bundle(path: str, evidence: Evidence, remote: Offer | None) -> bytes:
    file = evidence.files.get(SIGNATURE_NAME)
    if file is None:
        raise SignatureError(path, "no signature", f"{SIGNATURE_NAME}, by the key that signature_key names", _HINT)
    try:
        if remote is not None:
            return read_whole(remote, file, MAX_BUNDLE_BYTES)
        return read_small_file(contained(path, containment_root(evidence.folder)), MAX_BUNDLE_BYTES)
    except FormatError as exc:  # too large for a signature, no file, or a link that leads to what is not the model's
        raise SignatureError(path, exc.found, exc.expected, exc.hint or _HINT) from exc


def expect(file: OfferedFile, signed: SignedDigests) -> OfferedFile:
    """``file`` by what was signed of it, and by nothing else; of what was left out nothing is known."""
    entry = signed.files.get(file.path)
    if entry is None:
        return replace(file, sha256=None, git_sha1=None, blocks=None)
    if not isinstance(entry, WholeFile) or entry.algorithm != "sha256":
        return replace(file, sha256=None, git_sha1=None, blocks=None, signed=entry)
    return replace(file, sha256=entry.digest, git_sha1=None, blocks=None)
