"""How a hub is reached, and how long it is waited for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import urlsplit

from fastload._store.hub.redacting import redacting
from fastload.errors import HubError, UsageError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_PASSED_OVER = frozenset("\t\r\n")
"""By ``urlsplit``, wherever they stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long a hub is asked before it counts as not reachable."""

    attempts: int = 6
    """In a row; each byte that arrives starts the count again."""
    give_up_after_s: float | None = None
    """Since the first of them; None: however long they take."""
    first_pause_s: float = 0.5
    """Before the second attempt; it doubles from pause to pause."""
    longest_pause_s: float = 60.0
    """However long a server asks to wait."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    """Between two bytes."""
    floor_bytes_per_s: int = 4 << 10  # 4 KiB
    """A transfer that is slower over a whole window is cut, and goes on over another connection."""
    floor_window_s: float = 30.0
    grace_s: float = 0.5
    """Where a server knows no ranges: how long bytes that nobody has asked for yet are kept from being skipped."""

    def within(self, longest_s: float | None) -> Patience:
        """No longer than that; None: as long as this one is."""
        if longest_s is None:
            return self
        return replace(
            self,
            give_up_after_s=longest_s if self.give_up_after_s is None else min(self.give_up_after_s, longest_s),
            connect_timeout_s=min(self.connect_timeout_s, longest_s),
            read_timeout_s=min(self.read_timeout_s, longest_s),
            floor_window_s=min(self.floor_window_s, longest_s),  # bytes that drip are no silence
            longest_pause_s=min(self.longest_pause_s, longest_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAccess:
    """A hub's address and the way to it. Nothing here comes from the environment by itself: the caller says it all."""

    endpoint: str = "https://huggingface.co"
    token: str | None = field(default=None, repr=False)
    """None: the one that huggingface_hub finds. Empty: none is sent."""
    ca_file: str | None = None
    """Certificates to trust instead of the system's."""
    https_proxy: str | None = field(default=None, repr=False)
    http_proxy: str | None = field(default=None, repr=False)
    no_proxy: str = ""
    """Hosts that are reached directly: ``host``, ``host:port`` or a domain, with commas between; ``*`` for all."""
    patience: Patience = field(default_factory=Patience)


class Origin(NamedTuple):
    """What a token is bound to: it is never sent to another."""

    scheme: str
    host: str
    port: int


def find_origin(url: str) -> Origin | None:
    """The origin of an absolute ``url`` over http or https; None for any other text.

    And for one of which urllib3, which asks it, may think otherwise: to it the host ends at a backslash, which to
    ``urlsplit`` belongs to a user's name before ``@``; and it does not pass over tabs and what precedes the scheme.
    """
    if not url[:1].isalpha() or not _PASSED_OVER.isdisjoint(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or "\\" in parts.netloc:
        return None
    return Origin(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme])


def parse_endpoint(endpoint: str) -> tuple[str, Origin]:
    """``endpoint`` without a final slash, and its origin.

    Raises:
        UsageError: it is no URL that a hub can have.
    """
    origin = find_origin(endpoint)
    if origin is None or "@" in urlsplit(endpoint).netloc or not endpoint.isprintable():
        # Not shown: a user who writes a password into a URL has written it here.
        raise UsageError("the endpoint is no address of a hub", "Give one such as https://huggingface.co (HF_ENDPOINT)")
    return endpoint.rstrip("/"), origin


def find_token(endpoint: str) -> str:
    """The token that huggingface_hub finds, renewed if need be; empty if there is none.

    Raises:
        HubError: it was to be fetched from somewhere, and that failed.
    """
    from huggingface_hub import constants, get_token  # noqa: PLC0415 - takes 0.2 s, only where the hub is asked

    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return ""
    try:
        with redacting():
            return get_token() or ""
    except _token_failures() as exc:
        reason = f"the token for it could not be read or renewed ({type(exc).__name__})"
        raise HubError(endpoint, reason, "Set HF_TOKEN, or log in again: hf auth login") from exc


def _token_failures() -> tuple[type[Exception], ...]:
    """What ``get_token`` may raise: also errors of the client below, httpx in 1.x and httpx2 in 2.x."""
    from huggingface_hub import errors  # noqa: PLC0415

    below = [base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return (OSError, ValueError, *filter(None, (*below, getattr(errors, "OIDCError", None))))
