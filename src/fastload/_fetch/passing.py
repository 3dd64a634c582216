"""What is wrong with one source must not keep the next one from serving: which were passed over, and why."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastload._store.admit.stamp import read_chosen
from fastload._store.wanted import Wish
from fastload.errors import FormatError, ModelNotFoundError, NetworkError, UsageError

if TYPE_CHECKING:
    from fastload._store.root import Stored
    from fastload.errors import FastloadError

_log = logging.getLogger("fastload")
_PARTIAL = "This copy was brought with --include or --exclude: fastload warm {} brings the rest"


def explain_want(error: FastloadError, stored: Stored) -> bool:
    """True if a load may have failed because a wish has left files out of ``stored``; the hint says so then."""
    if not isinstance(error, FormatError | ModelNotFoundError | UsageError) or not _is_partial(stored):
        return False
    error.hint = _PARTIAL.format(f"{stored.repo}@{stored.commit}")
    return True


def _is_partial(stored: Stored) -> bool:
    """True if the commit may have more that is brought by default."""
    if stored.layout is None or stored.commit is None:
        return False
    chosen = read_chosen(stored.layout.stamp(stored.commit))
    return not chosen.meets(Wish(), (), must_be_sure=True)


class Passing:
    """The sources of one model that could not give it."""

    def __init__(self) -> None:
        self._failures: list[tuple[str, FastloadError]] = []
        self._told_count = 0

    def over(self, tier: str, failure: FastloadError) -> None:
        """``tier`` cannot give it; the next one may."""
        self._failures.append((tier, failure))

    def tell(self, instead: str) -> None:
        """Warn, once, of those that were passed over for the tier ``instead``."""
        for tier, failure in self._failures[self._told_count :]:
            _log.warning("%s was passed over: %s. Now from %s", tier, failure, instead)
        self._told_count = len(self._failures)

    @property
    def reason(self) -> str:
        """Why it is the next one that serves, for a report; empty: it is the first."""
        return "; ".join(f"{tier} was passed over: {failure}" for tier, failure in self._failures)

    @property
    def error(self) -> FastloadError | None:
        """What to raise where nobody is left: that to try again may help, else what was wrong with the first."""
        failures = [failure for _, failure in self._failures]
        return next((failure for failure in failures if isinstance(failure, NetworkError)), next(iter(failures), None))
