"""What is known of a model's content, by the settings: ``verify``, ``signature_key``, ``manifests``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._fetch.evidence.evidence import NOTHING, evidence_of_hub, find_evidence, may_be_known
from fastload._fetch.evidence.recorded import warn_of
from fastload._fetch.evidence.signed import by_signature
from fastload._store.admit.stamp import read_chosen
from fastload._store.manifest_folder import ManifestFolder
from fastload._store.stored import PlainFolder
from fastload._store.wanted import Wish
from fastload._verify.trust import PassedOver
from fastload.errors import UsageError

if TYPE_CHECKING:
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._read.proof import Repair
    from fastload._store.offer import Offer
    from fastload._store.stored import Stored
    from fastload.options import Settings


def manifests_of(settings: Settings) -> ManifestFolder | None:
    """Where manifests are kept apart, if anywhere."""
    return None if settings.manifests is None else ManifestFolder(settings.manifests)


def weigh(stored: Stored, repair: Repair, settings: Settings) -> Evidence:
    """What is known of ``stored`` for a load.

    Raises:
        FormatError, SignatureError, StoreError, UnsupportedError, UsageError: evidence that cannot be used.
    """
    if settings.verify == "off":
        return _nothing(settings)
    if settings.signature_key is None and not may_be_known(stored) and not _is_kept(stored, settings):
        return NOTHING
    return weigh_all(stored, repair, settings)


def weigh_all(stored: Stored, repair: Repair, settings: Settings) -> Evidence:
    """What is known of ``stored``, and all files that are there; Raises: as :func:`weigh`."""
    manifests = manifests_of(settings)
    if settings.signature_key is None:
        return find_evidence(stored, repair, manifests)
    kept = None if manifests is None else manifests.find(stored)
    evidence = find_evidence(stored, repair)
    if isinstance(kept, PassedOver):
        warn_of(stored, kept)
        kept = None
    return by_signature(evidence, settings.signature_key, kept=kept, brought=_wish_of(stored))


def _wish_of(stored: Stored) -> Wish:
    """By which wish its files were chosen; by the default one where nobody noted that."""
    if isinstance(stored, PlainFolder):
        return Wish()
    return read_chosen(stored.layout.stamp(stored.commit)).wish


def _is_kept(stored: Stored, settings: Settings) -> bool:
    manifests = manifests_of(settings)
    return manifests is not None and manifests.find(stored) is not None  # not believed either: the report says so


def weigh_hub(offer: Offer, settings: Settings) -> Evidence:
    """What the hub says of what it gives; Raises: as :func:`weigh`."""
    if settings.verify == "off":
        return _nothing(settings)
    evidence = evidence_of_hub(offer)
    return evidence if settings.signature_key is None else by_signature(evidence, settings.signature_key, remote=offer)


def _nothing(settings: Settings) -> Evidence:
    check_may_be_off(settings)
    return NOTHING


def check_may_be_off(settings: Settings) -> None:
    """Raise ``UsageError`` where nothing is to be verified, and all is to be signed."""
    if settings.verify == "off" and settings.signature_key is not None:
        raise UsageError("verify is off, and signature_key is set", "Unset one of them")
