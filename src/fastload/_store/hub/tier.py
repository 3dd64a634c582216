"""The tier that is the hub: which commit a revision means, which files it has, and a reader for each.

Asked by our own requests, not through ``huggingface_hub.HfApi``: that one lists without a time limit, sleeps as long as
any server asks it to, sends the token along wherever a next page is said to be, and knows no proxy or certificates but
the environment's. What huggingface_hub is used for is the token, which it may have to renew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit

from fastload._json_outline import Density
from fastload._store.hub.access import HubAccess, Patience
from fastload._store.hub.answer import PORTAL_HINT, MissingError, check_answer
from fastload._store.hub.listing import parse_commit, parse_next_page, parse_tree
from fastload._store.hub.reader import HubReader, RemoteFile
from fastload._store.hub.retry import TransientError, persist
from fastload._store.hub.wire import Wire, join_url
from fastload._store.ref import DEFAULT_REVISION, is_commit
from fastload._tier import HUB, Tier
from fastload._verify.evidence_kind import EvidenceKind
from fastload.errors import FormatError
from fastload.strict_json import JsonError, parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._store.hub.wire import Answer
    from fastload._store.offer import OfferedFile
    from fastload._store.wanted import Wish

__all__ = ["HubAccess", "HubOffer", "HubTier", "Patience"]

_MAX_PAGE_BYTES = 64 << 20  # 64 MiB
_DENSITY = Density(value_bytes=8, object_bytes=16)
"""The entry of a file has 88 bytes at least, and 5 commas and brackets; its name alone, as it stands in what is said of
a revision, 18 and two."""
_MAX_PAGES = 1000
"""The hub puts 1000 entries on one."""
_DEPTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOffer:
    """A commit on the hub; see :class:`~fastload._store.offer.Offer`."""

    repo: str
    commit: str
    files: tuple[OfferedFile, ...]
    wire: Wire = field(repr=False)
    tier: Tier = HUB
    evidence: EvidenceKind = EvidenceKind.LISTING
    folder: None = None
    depth: int = _DEPTH

    def lacks(self, wish: Wish) -> bool:
        """See :class:`~fastload._store.offer.Offer`: the hub has all there is, whatever is wanted of it."""
        return False

    def asked_less(self, attempts: int, longest_pause_s: float) -> HubOffer:
        """The same, where what fails is asked for less often, and after shorter pauses."""
        return replace(self, wire=self.wire.asked_less(attempts, longest_pause_s))

    def open(self, file: OfferedFile) -> HubReader:
        """See :class:`~fastload._store.offer.Offer`; nothing is asked before the first read."""
        url = f"{self.wire.endpoint}/{self.repo}/resolve/{self.commit}/{quote(file.path)}"
        return HubReader(self.wire, RemoteFile(url, self.repo, file.size))


class HubTier:
    """Finds snapshots on a hub. A context manager: leaving it closes the connections.

    Raises:
        UsageError: the endpoint is no address of a hub.
    """

    def __init__(self, access: HubAccess) -> None:
        self._wire = Wire(access)

    @property
    def endpoint(self) -> str:
        """Its address, without a final slash."""
        return self._wire.endpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, repo: str, revision: str | None) -> HubOffer | None:
        """What there is of ``repo``; None if the hub has no such repository or revision.

        Args:
            repo: ``org/name``.
            revision: None for ``main``; a commit spares one request.

        Raises:
            AuthError: the hub wants a token, or a better one.
            NetworkError: it cannot be reached, or does not answer as a hub.
            HubError: it refuses for another reason, or no token could be read.
            UsageError: the token, the proxy or the certificates of the access cannot be used.
            FormatError: what it lists cannot be a commit.
        """
        commit = self.find_commit(repo, revision)
        if commit is None:
            return None
        try:
            files = parse_tree(self._list(repo, commit), f"{repo}@{commit}")
        except MissingError:
            return None
        return HubOffer(repo=repo, commit=commit, files=files, wire=self._wire)

    def find_commit(self, repo: str, revision: str | None) -> str | None:
        """What ``revision`` means now, None if there is no such; raises as :meth:`find`. A commit is not asked for."""
        if revision is not None and is_commit(revision):
            return revision
        url = f"{self._wire.endpoint}/api/models/{repo}/revision/{quote(revision or DEFAULT_REVISION, safe='')}"

        def ask() -> str:
            info, _ = self._ask(url, repo)
            commit = parse_commit(info)
            if commit is None:
                raise TransientError(url, "it answered without a commit", PORTAL_HINT)
            return commit

        try:
            return persist(self._wire.patience, ask)
        except MissingError:
            return None

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._wire.close()

    def _list(self, repo: str, commit: str) -> Iterator[Any]:
        url: str | None = f"{self._wire.endpoint}/api/models/{repo}/tree/{commit}?recursive=true&expand=false"
        for _ in range(_MAX_PAGES):
            if url is None:
                return
            page, url = self._ask_page(url, repo)
            yield from page
        raise FormatError(f"{repo}@{commit}", f"a listing of more than {_MAX_PAGES:,} pages", "less")

    def _ask_page(self, url: str, repo: str) -> tuple[list[Any], str | None]:
        def ask() -> tuple[list[Any], str | None]:
            page, answer = self._ask(url, repo)
            if not isinstance(page, list):
                raise TransientError(url, "it answered without a list of files", PORTAL_HINT)
            return page, self._at_endpoint(answer)

        return persist(self._wire.patience, ask)

    def _at_endpoint(self, answer: Answer) -> str | None:
        """Where the next page is. A mirror may pass on the hub's own address: that page too is asked of the mirror."""
        link = parse_next_page(answer.headers.get("Link", ""))
        if link is None:
            return None
        url = join_url(answer.url, link)
        if url is None:
            raise TransientError(answer.url, "the next page of its listing is nowhere")
        if self._wire.is_ours(url):
            return url
        parts = urlsplit(url)
        return f"{self._wire.endpoint}{parts.path}?{parts.query}"

    def _ask(self, url: str, repo: str) -> tuple[Any, Answer]:
        """What the hub says at ``url``, once."""
        answer = self._wire.get(url, {"Accept": "application/json"})
        try:
            check_answer(answer.status, answer.headers, self._wire.asked(url, repo, answer))
            raw = self._wire.read_all(answer, _MAX_PAGE_BYTES)
        except BaseException:
            answer.drop()
            raise
        answer.finish()
        try:
            return parse_json(raw, density=_DENSITY), answer
        except JsonError as exc:
            reason = f"it answered with something else than a hub's JSON ({exc})"
            raise TransientError(url, reason, PORTAL_HINT) from exc
