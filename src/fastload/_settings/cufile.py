"""What cuFile's own variables say; they mean here what they mean there. And where measurements are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONFIG = "/etc/cufile.json"
_TRUE = frozenset({"1", "true", "on", "yes"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CufileSettings:
    """How cuFile was set up."""

    config: str = _CONFIG
    """Its configuration, in JSON with comments."""
    uses_p2pdma: bool = False
    """True if its variable asks for PCI peer-to-peer DMA; the configuration may, too."""


def cufile_settings(variables: Mapping[str, str]) -> CufileSettings:
    """From the environment; an empty variable is not set."""
    return CufileSettings(
        config=variables.get("CUFILE_ENV_PATH_JSON") or _CONFIG,
        uses_p2pdma=variables.get("CUFILE_USE_PCIP2PDMA", "").lower() in _TRUE,
    )


def find_measurements(variables: Mapping[str, str]) -> str | None:
    """The folder for what was measured of this machine; None where the user has no home."""
    home = variables.get("HOME")
    above = variables.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if home else "")
    return os.path.join(above, "fastload") if os.path.isabs(above) else None
