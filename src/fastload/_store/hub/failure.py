"""urllib3's errors as ours."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from fastload._store.hub.pool import CA_HINT, PROXY_HINT
from fastload._store.hub.retry import TransientError
from fastload.errors import NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3.exceptions import HTTPError

    from fastload._store.hub.access import Patience


def translate(
    url: str, exc: HTTPError, patience: Patience, *, handled: BaseException | None
) -> TransientError | NetworkError:
    """Our error for what urllib3 said of ``url``; it names the host, never a signed link.

    Args:
        url: what was asked for.
        exc: what urllib3 said.
        patience: how long was waited.
        handled: what somebody above was handling when it was asked, which is no cause, though Python chains it on.
    """
    from urllib3 import exceptions as theirs  # noqa: PLC0415

    shown, cause = without_query(url), _root_of(exc, handled)
    said = _say(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NetworkError(shown, f"its certificate is not trusted ({cause.verify_message})", CA_HINT)
    if isinstance(exc, theirs.ProxyError):
        return TransientError(shown, f"the proxy does not let us through ({said})", PROXY_HINT)
    reasons = (
        (theirs.NameResolutionError, "its name cannot be resolved"),
        (theirs.NewConnectionError, f"no connection ({said})"),
        (theirs.ConnectTimeoutError, f"no connection within {patience.connect_timeout_s:g} s"),
        (theirs.ReadTimeoutError, f"silent for {patience.read_timeout_s:g} s"),
    )
    reason = next((text for kind, text in reasons if isinstance(exc, kind)), f"it broke off ({said})")
    return TransientError(shown, reason, "Check the network, then try again")


def without_query(url: str) -> str:
    """``url`` without what signs it."""
    return url.partition("?")[0]


def _root_of(exc: BaseException, handled: BaseException | None) -> BaseException:
    """The first cause: urllib3 and http.client wrap it several times."""
    for inner in _causes(exc, handled):
        exc = inner
    return exc


def _say(exc: BaseException) -> str:
    """Without the text of other kinds of errors, which quote what a server wrote."""
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else type(exc).__name__


def _causes(exc: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    while (inner := exc.__cause__ or exc.__context__) is not None and inner is not handled:
        yield inner
        exc = inner
