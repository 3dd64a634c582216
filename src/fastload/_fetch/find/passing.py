"""What is wrong with one source must not keep the next one from serving: which were passed over, and why."""

from __future__ import annotations

import logging
import os
import posixpath
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.admit.stamp import read_chosen
from fastload._store.ref import is_spellable
from fastload._store.stored import PlainFolder
from fastload.errors import FastloadError, FormatError, ModelNotFoundError, NetworkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._fetch.find.model import Source
    from fastload._store.stored import Stored
    from fastload._tier import Tier

_log = logging.getLogger("fastload")
_LEFT_OUT = "This copy was brought with --exclude"
_MAY_LACK = "This copy may lack some of the model, as the one that it came from may"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_WEIGHTS_OF_VARIANT = ("*.{}.safetensors", "*.{}-*.safetensors", "*.safetensors.index.{}.json")


@dataclass(frozen=True, slots=True)
class Want:
    """A failure that may come of files that were left out when the copy was made."""

    error: FormatError | ModelNotFoundError | UsageError
    reason: str
    cure: str

    def explain(self) -> None:
        """Say so with the error."""
        self.error.add_hint(f"{self.reason}: {self.cure}")

    def is_denied_by(self, other: FastloadError, name: str) -> bool:
        """True if another tier, which has ``name`` and lacks nothing of it, failed with ``other`` for the same."""
        if not isinstance(other, type(self.error)):
            return False
        is_without_model = isinstance(other, ModelNotFoundError) and other.model == name
        return not is_without_model and self.cure not in other.hint


class LostError(Exception):
    """A copy has lost a file and is not to be mended, lacks one, or cannot be read or believed: none of it serves."""

    def __init__(self, error: FastloadError, want: Want | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.want = want


@contextmanager
def passed_over_where_unusable(stored: Stored, source: Source, *kinds: type[FastloadError]) -> Iterator[None]:
    """Of a commit, what one of ``kinds`` keeps from being read, or a wish has left out, may be had elsewhere."""
    try:
        yield
    except FastloadError as exc:
        want = find_want(exc, stored, source)
        if want is None and (stored.commit is None or not isinstance(exc, kinds)):
            raise
        raise LostError(exc, want) from exc


def find_want(error: FastloadError, stored: Stored, source: Source) -> Want | None:
    """What a wish may have left out of ``stored`` so that a load of ``source`` failed; None: that is not why."""
    if not isinstance(error, FormatError | ModelNotFoundError | UsageError):
        return None
    names = _name_needed(error, stored.folder, source)
    if isinstance(stored, PlainFolder) or not names:
        return None
    chosen = read_chosen(stored.layout.stamp(stored.commit))
    parts = (chosen, *chosen.also)  # of the commit there is what any of them has chosen
    cure = f"fastload warm {stored.repo}@{stored.commit} brings the rest"
    if any(all(part.wish.may_leave_out(name) for part in parts) for name in names):
        return Want(error, _LEFT_OUT, cure)
    if any(all(not part.is_sure or part.wish.may_leave_out(name) for part in parts) for name in names):
        return Want(error, _MAY_LACK, cure)
    return None


def _name_needed(error: FastloadError, folder: str, source: Source) -> tuple[str, ...]:
    """What files are called with which a load would not have failed, ``*`` for what nobody knows; none: no file helps.

    Paths in ``folder``, the snapshot's.
    """
    below = source.subfolder or ""
    if not is_spellable(below or ".") or os.path.isabs(below) or ".." in below.split("/"):
        return ()
    if isinstance(error, FormatError) and not os.path.isdir(error.path):
        is_gone = not os.path.lexists(error.path)
        return (os.path.relpath(error.path, folder),) if is_gone else ()
    variant = source.variant
    weights = _WEIGHTS if variant is None else tuple(name.format(variant) for name in _WEIGHTS_OF_VARIANT)
    return tuple(posixpath.normpath(posixpath.join(below, name)) for name in weights)


class Passing:
    """The sources of one model that could not give it."""

    def __init__(self) -> None:
        self._failures: list[tuple[Tier, FastloadError]] = []
        self._told_count = 0

    def over(self, tier: Tier, failure: FastloadError) -> None:
        """``tier`` cannot give it; the next one may."""
        self._failures.append((tier, failure))

    def tell(self, instead: Tier) -> None:
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

    @property
    def explained(self) -> FastloadError | None:
        """:attr:`error`, which says of the others too why they were passed over."""
        error = self.error
        for tier, failure in self._failures:
            if error is not None and failure is not error:
                error.add_hint(f"{tier} was passed over: {failure}")
        return error
