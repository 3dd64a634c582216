"""What was found of a file, beside what is known of it.

Two sides need not know the same digests. So there are two questions: whether a content has all that is known of it, and
whether two sides speak of different contents for certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fastload.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._verify.statement import SignedFile


@dataclass(frozen=True, slots=True)
class Difference:
    """How a file differs from what is known of it, in the words of the error that says so."""

    found: str
    expected: str
    offset: int = 0
    """Where in the file; 0 where only the whole is known to be wrong."""

    def as_error(self, path: str, hint: str, *, is_whole: bool = False) -> IntegrityError:
        """What to raise, of the file at ``path``; ``is_whole``: see :class:`~fastload.errors.IntegrityError`."""
        return IntegrityError(path, self.offset, self.found, self.expected, hint, is_whole=is_whole)


class Digests(Protocol):
    """Digests of one whole file, as somebody has listed or taken them."""

    @property
    def sha256(self) -> str | None:
        """None: not known."""

    @property
    def git_sha1(self) -> str | None:
        """None: not known, or not taken."""


class KnownFile(Digests, Protocol):
    """What is known of one whole file."""

    @property
    def signed(self) -> SignedFile | None:
        """What the holder of a key says of it; None: nothing."""


def find_difference(known: Digests, content: Digests) -> Difference | None:
    """The first digest that is ``known`` and that ``content`` does not have; None: it has them all.

    One that nobody has taken of ``content`` differs: what is left out cannot speak for it.
    """
    for name, expected, found in _compared(known, content):
        if found != expected:
            return Difference(f"{name} {found}", expected)
    return None


def find_contradiction(known: Digests, content: Digests) -> Difference | None:
    """The same of the digests that both have; None: for all that is known they are of one content."""
    for name, expected, found in _compared(known, content):
        if found is not None and found != expected:
            return Difference(f"{name} {found}", expected)
    return None


def _compared(known: Digests, content: Digests) -> Iterator[tuple[str, str, str | None]]:
    """Each digest that is ``known``, by name, and what ``content`` has."""
    if known.sha256 is not None:
        yield "sha256", known.sha256, content.sha256
    if known.git_sha1 is not None:
        yield "git_sha1", known.git_sha1, content.git_sha1
