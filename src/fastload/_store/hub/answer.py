"""What a hub's status means: come in, come again, not here, or not for you."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.hub.retry import TransientError, find_asked_pause
from fastload.errors import AuthError, HubError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OK = frozenset({200, 206})
_REFUSED = frozenset({401, 403})
_PASSING = frozenset({408, 425, 429})
_SERVER_ERRORS = 500
_UNKNOWN_REPO = "RepoNotFound"
_DISABLED = "Access to this resource is disabled."
PORTAL_HINT = (
    "A captive portal or a proxy may stand between: open the address in a browser, check HTTPS_PROXY and HF_ENDPOINT"
)


class MissingError(Exception):
    """The hub has no such repository, revision or file. Never leaves this room."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, as far as an error has to name it; no token and no signed link is in it."""

    url: str
    page: str
    """Where a person accepts the terms of a gated model."""
    has_token: bool


def check_answer(status: int, headers: Mapping[str, str], asked: Asked) -> None:
    """Return if the content follows.

    Raises:
        AuthError: who asks may not have it.
        MissingError: it is not there.
        TransientError: asking again may help.
        HubError: the hub does something else.
    """
    if status in _OK:
        if headers.get("Content-Encoding", "identity") != "identity":
            raise TransientError(asked.url, "it came compressed, though it was not to be", PORTAL_HINT)
        return
    # Asked without a token, the hub says 401 of what it does not have.
    if status == 404 or (status in _REFUSED and headers.get("X-Error-Code") == _UNKNOWN_REPO):  # noqa: PLR2004
        raise MissingError
    if status in _REFUSED:
        raise _refusal(status, headers, asked)
    if status in _PASSING or status >= _SERVER_ERRORS:
        what = "asks for fewer requests" if status == 429 else "is in trouble"  # noqa: PLR2004
        reason = f"the hub {what} (status {status})"
        raise TransientError(asked.url, reason, "Try again later", after_s=find_asked_pause(headers))
    raise HubError(asked.url, f"the hub answered with status {status}", "Check the endpoint (HF_ENDPOINT)")


def _refusal(status: int, headers: Mapping[str, str], asked: Asked) -> AuthError:
    """In fixed words: what a server writes may hold what it was sent."""
    if headers.get("X-Error-Message") == _DISABLED:
        return AuthError(asked.url, "the hub has disabled this repository", f"Its page says more: {asked.page}")
    is_gated = headers.get("X-Error-Code") == "GatedRepo"
    kind = "the model is gated, and " if is_gated else ""
    if not asked.has_token:
        hint = f"Set HF_TOKEN or run `hf auth login`; a gated model's terms are accepted at {asked.page}"
        return AuthError(asked.url, f"{kind}no token was sent (status {status})", hint)
    if status == 401:  # noqa: PLR2004
        hint = f"It may have expired: make a new one, set HF_TOKEN, and see {asked.page}"
        return AuthError(asked.url, f"{kind}the token that was sent is refused (status 401)", hint)
    hint = f"Accept the terms at {asked.page} with the account of the token, or give the token read access to the model"
    return AuthError(asked.url, f"{kind}the token that was sent has no access (status {status})", hint)
