"""Signed digests: what an OpenSSF Model Signing bundle (``model.sig``) says of a model's files.

They are what the bytes are compared with while they are loaded, so nothing is read twice. A signature that holds proves
who wrote the statement, not that the statement makes sense: what a careless or compromised signer wrote is refused too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastload._verify.dsse import open_bundle
from fastload._verify.fields import refusal
from fastload._verify.path import OURS, PathError, check_path_in_snapshot, must_be_signed
from fastload._verify.statement import SignedFile, parse_statement
from fastload.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

SIGNATURE_NAME = "model.sig"
"""Where ``model_signing sign`` leaves the bundle in the folder it signs."""

_NEVER_SIGNED = (".git", ".gitattributes", ".github", ".gitignore", SIGNATURE_NAME, OURS)


@dataclass(frozen=True, slots=True)
class SignedDigests:
    """What the holder of a key signed."""

    path: str
    """Where the bundle lies."""
    key_id: str
    """sha256 of the key as DER (SubjectPublicKeyInfo), as hex."""
    root: str
    """sha256 over the digests of all resources: names this set of files."""
    algorithm: str
    files: Mapping[str, SignedFile]
    """By path in the snapshot. With the method ``shards``, empty files are in no statement."""
    ignored: tuple[str, ...]
    """Files and folders that the signer left out."""
    sha256: str = field(compare=False)
    """Of the bundle itself, as hex: whoever keeps it should keep the one that was verified. Others say the same."""


def verify_bundle(raw: bytes, key_pem: bytes, *, path: str) -> SignedDigests:
    """The digests that the key ``key_pem`` signed in the bundle ``raw``; ``path`` is where it lies, for messages.

    Raises:
        SignatureError: the signature does not hold, or what was signed is not a model that can be loaded.
        UnsupportedError: it is signed by a certificate, the key is of another kind, or ``cryptography`` is missing.
        UsageError: ``key_pem`` is no public key.
    """
    signed = open_bundle(raw, key_pem, path=path)
    statement = parse_statement(signed.payload, path=path)
    _check_ignored(statement.ignored, statement.files, path)
    return SignedDigests(
        path=path,
        key_id=signed.key_id,
        root=statement.root,
        algorithm=statement.algorithm,
        files=statement.files,
        ignored=statement.ignored,
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def find_unsigned(signed: SignedDigests, paths: Iterable[str]) -> tuple[str, ...]:
    """Those of ``paths`` that should be signed and are not, sorted.

    The signature itself, git's and fastload's own files need not be, nor what the signer left out; weights of any
    format, the index of safetensors and ``config.json`` must be, wherever they lie. Leave empty files out of ``paths``
    where the shards were signed.
    """
    left_out = frozenset((*_NEVER_SIGNED, *signed.ignored))
    unsigned = (path for path in paths if path not in signed.files)
    return tuple(sorted(path for path in unsigned if must_be_signed(path) or not _is_in(path, left_out)))


def _is_in(path: str, tops: Collection[str]) -> bool:
    """True if ``path`` is one of ``tops``, or lies in one."""
    above = path
    while above:
        if above in tops:
            return True
        above = above.rpartition("/")[0]
    return False


def _check_ignored(ignored: tuple[str, ...], files: Mapping[str, SignedFile], path: str) -> None:
    for entry in ignored:
        if must_be_signed(entry):
            raise refusal(
                path, f"ignore_paths with {quoted(entry)}", "a signature over every weight, and over all that is loaded"
            )
        try:
            if not _is_in(entry, (OURS,)):  # where fastload keeps its own files: rightly left out
                check_path_in_snapshot(entry)
        except PathError as exc:
            raise refusal(path, f"ignore_paths with {exc}", "paths that stay in the snapshot") from exc
    left_out = frozenset(ignored)
    for file in files:
        if _is_in(file, left_out):
            raise refusal(path, f"the file {quoted(file)}, signed and in ignore_paths", "one or the other")
