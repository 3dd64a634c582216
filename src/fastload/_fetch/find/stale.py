"""What is told where nobody could say whether there is something newer."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload._store.stored import Stored
    from fastload.errors import HubError


class StaleWarning(UserWarning):
    """The hub could not say whether there is something newer; what is there serves."""


def warn_stale(exc: HubError, here: Stored) -> None:
    """Warn the caller that what is ``here`` serves, since the hub does not say whether there is something newer."""
    warnings.warn(f"{exc}: taking what {here.tier} has", StaleWarning, stacklevel=3)
