"""Clients of the hub that tests use: as fastload's own, but hurried."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fastload._store.hub.tier import HubAccess, HubTier, Patience
from hub_server import HubServer, Repo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._store.hub.reader import HubReader
    from fastload._store.hub.tier import HubOffer

HURRIED = Patience(
    attempts=3,
    first_pause_s=0.01,
    longest_pause_s=0.2,
    connect_timeout_s=2.0,
    read_timeout_s=0.3,
    floor_bytes_per_s=1,
    grace_s=0.1,
)
TOKEN = "hf_TheSecretOfThisTest"  # noqa: S105 - nobody's
CONTENT = hashlib.shake_128(b"hub").digest(1_000_003)
"""No two pages alike, and an odd length."""


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
