"""The state of a training run, which a signer may leave out: not where an index makes weights of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._format.index import MAX_INDEX_BYTES
from fastload._read.file import read_small_file
from fastload._store.directory import contained, containment_root
from fastload._store.offered import read_whole
from fastload._verify.fields import refusal
from fastload._verify.path import is_any_index
from fastload._verify.training_state import is_training_state, may_name
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.offer import Offer, OfferedFile
    from fastload._verify.signature import SignedDigests


def check_not_named(evidence: Evidence, signed: SignedDigests, remote: Offer | None) -> None:
    """Check that no index of what there is may name what ``signed`` leaves out of it.

    Raises:
        SignatureError: one may.
        StoreError, HubError: one cannot be read.
    """
    files = [evidence.files[path] for path in sorted(evidence.files)]
    state = (file.path for file in files if file.size and is_training_state(file.path))
    unsigned = [path for path in state if path not in signed.files]
    indexes = [file for file in files if is_any_index(file.path)] if unsigned else []
    for index in indexes:
        raw = _read(evidence, index, remote)
        for path in unsigned:
            if raw is None or may_name(raw, path):
                found = f"{quoted(path)}, which the signature leaves out, and the index {quoted(index.path)} may name"
                raise refusal(signed.path, found, "a signature over every weight, and over all that is loaded")


def _read(evidence: Evidence, index: OfferedFile, remote: Offer | None) -> bytes | None:
    """None where nobody should read it as an index: far too large, or a link that leads to what is not the model's."""
    try:
        if remote is not None:
            return read_whole(remote, index, MAX_INDEX_BYTES)
        path = os.path.join(evidence.folder, index.path)
        if not os.path.lexists(path):  # lost, which is said by whoever misses it
            return b""
        return read_small_file(contained(path, containment_root(evidence.folder)), MAX_INDEX_BYTES)
    except FormatError:
        return None
