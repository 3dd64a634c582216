"""What the variables of the hub's own tools say; they mean here what they mean there."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDPOINT = "https://huggingface.co"
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """How the hub is reached. Not the environment's token: huggingface_hub finds it, and may have to renew it."""

    endpoint: str = _ENDPOINT
    token: str | None = field(default=None, repr=False)
    """What a caller gave: empty, and none is sent. None: the one that huggingface_hub finds."""
    is_offline: bool = False
    ca_file: str | None = None
    https_proxy: str | None = field(default=None, repr=False)
    http_proxy: str | None = field(default=None, repr=False)
    no_proxy: str = ""
    cache: str = ""
    """Where the hub's own tools keep what they downloaded; empty where only a home could say, and there is none."""
    home: str = ""
    """HF_HOME, where it is set: there they keep the token, and by default the cache."""
    is_cache_named: bool = False
    """True if the cache was named by itself, and so need not be in ``home``."""


def hub_settings(variables: Mapping[str, str]) -> HubSettings:
    """From the environment; an empty variable is not set."""

    def first(*names: str) -> str | None:
        spellings = [spelling for name in names for spelling in (name, name.lower())]
        return next((variables[name] for name in spellings if variables.get(name)), None)

    return HubSettings(
        endpoint=(variables.get("HF_ENDPOINT") or _ENDPOINT).rstrip("/"),
        is_offline=any(variables.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
        # As the hub's own client has it; the other is what its elder versions went by.
        ca_file=variables.get("SSL_CERT_FILE") or variables.get("REQUESTS_CA_BUNDLE") or None,
        https_proxy=first("HTTPS_PROXY", "ALL_PROXY"),
        http_proxy=first("HTTP_PROXY", "ALL_PROXY"),
        no_proxy=first("NO_PROXY") or "",
        cache=_find_cache(variables),
        home=_absolute(variables["HF_HOME"]) if variables.get("HF_HOME") else "",
        is_cache_named=bool(variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE")),
    )


def _find_home(variables: Mapping[str, str]) -> str:
    named = variables.get("HF_HOME")
    if named:
        return named
    above = variables.get("XDG_CACHE_HOME") or os.path.join(variables.get("HOME") or "~", ".cache")
    return os.path.join(above, "huggingface")


def _find_cache(variables: Mapping[str, str]) -> str:
    named = variables.get("HF_HUB_CACHE") or variables.get("HUGGINGFACE_HUB_CACHE")
    return _absolute(named or os.path.join(_find_home(variables), "hub"))


def _absolute(path: str) -> str:
    """Empty for a ``~`` that stands for nothing, as for a user without HOME and without a line in /etc/passwd.

    The hub's own tools take it for a folder of that name, in whatever folder they are run.
    """
    expanded = os.path.expanduser(path)
    return "" if expanded.startswith("~") else os.path.abspath(expanded)
