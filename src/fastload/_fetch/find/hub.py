"""The hub, as the settings have it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._store.hub.tier import HubAccess, HubTier, Patience
from fastload._tier import TierKind

if TYPE_CHECKING:
    from fastload._settings.hub import HubSettings
    from fastload.options import Settings


def hub_of(settings: Settings, patience: Patience | None = None) -> HubTier | None:
    """The hub, where it may be asked."""
    if TierKind.HUB not in settings.tiers or settings.hub.is_offline:
        return None
    return HubTier(replace(_access(settings.hub), patience=patience or Patience()))


def _access(hub: HubSettings) -> HubAccess:
    return HubAccess(
        endpoint=hub.endpoint,
        token=hub.token,
        ca_file=hub.ca_file,
        http_proxy=hub.http_proxy,
        https_proxy=hub.https_proxy,
        no_proxy=hub.no_proxy,
    )
