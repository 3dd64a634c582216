"""Clients of the hub that tests use: as fastload's own, but hurried."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._store.hub.tier import HubAccess, HubTier, Patience
from hub_faults import Stall
from hub_server import HubServer, Repo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._store.hub.reader import HubReader
    from fastload._store.hub.tier import HubOffer
    from hub_faults import Fault

HURRIED = Patience(
    attempts=3,
    first_pause_s=0.01,
    longest_pause_s=0.2,
    connect_timeout_s=2.0,
    read_timeout_s=20.0,
    floor_bytes_per_s=1,
    grace_s=0.1,
)
IMPATIENT = replace(HURRIED, read_timeout_s=0.7)
"""For a hub that falls silent, and for no other: one on a busy machine is taken for that, and asked once more."""
TOKEN = "hf_TheSecretOfThisTest"  # noqa: S105 - nobody's
CONTENT = hashlib.shake_128(b"hub").digest(1_000_003)
"""No two pages alike, and an odd length."""


def patience_with(fault: Fault) -> Patience:
    """As much as a hub with this fault needs."""
    return IMPATIENT if isinstance(fault, Stall) else HURRIED


def hub_with(files: Mapping[str, bytes], *, repo: str = "org/name", has_cdn: bool = True) -> HubServer:
    """A hub that holds one repo."""
    return HubServer({repo: Repo(files)}, has_cdn=has_cdn)


def tier_of(hub: HubServer, *, token: str = "", patience: Patience = HURRIED) -> HubTier:
    """A tier over ``hub``, to be closed by the caller."""
    return HubTier(HubAccess(endpoint=hub.url, token=token, patience=patience))


def find(tier: HubTier, repo: str = "org/name", revision: str | None = None) -> HubOffer:
    """The offer of a repo that must be there."""
    offer = tier.find(repo, revision)
    assert offer is not None
    return offer


def open_file(tier: HubTier, path: str = "model.safetensors") -> HubReader:
    """A reader of one file of ``org/name``."""
    offer = find(tier)
    return offer.open(next(file for file in offer.files if file.path == path))


def read(reader: HubReader, offset: int, length: int) -> bytes:
    """What a reader says is there."""
    memory = bytearray(b"\xee" * length)
    reader.read_into(offset, [memoryview(memory)])
    return bytes(memory)
