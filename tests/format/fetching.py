"""Fetching as the tests of the format do it: with the settings that nobody set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._fetch.checkpoint import fetch as checkpoint
from fastload.options import decide_settings

if TYPE_CHECKING:
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._fetch.find.model import Source


def fetch(source: Source) -> Fetched:
    """The checkpoint that ``source`` means, by the default settings."""
    return checkpoint.fetch(source, decide_settings(None, {}))
