"""The only reader of the environment: what of it is for settings, and what for the processes that fastload starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECRET = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
"""What the hub's client takes for a token. None of our children asks the hub, and others may look at a process."""


def own_environment() -> Mapping[str, str]:
    """This process's, as it is now."""
    return os.environ


def child_environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """``variables``, or this process's, without tokens. Every child is started with it."""
    known = own_environment() if variables is None else variables
    return {name: text for name, text in known.items() if name not in _SECRET}
