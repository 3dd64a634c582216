"""Requests over urllib3: the token goes to the endpoint only, redirects are followed by hand, no foreign error leaves.

urllib3 forwards ``Authorization`` by host name, whatever the port; here the whole origin must be the same. It logs each
request with its query, and warns of odd headers with the whole link: neither is shown what signs it.
"""

from __future__ import annotations

import re
import sys
import threading
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from fastload._store.hub.access import HubAccess, find_origin, find_token, parse_endpoint
from fastload._store.hub.answer import Asked
from fastload._store.hub.failure import translate, without_query
from fastload._store.hub.meter import Meter
from fastload._store.hub.pool import Pools
from fastload._store.hub.redacting import redacting
from fastload._store.hub.retry import TransientError
from fastload.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import urllib3

_LENGTH = re.compile(r"[0-9]{1,19}")
_MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_STEP_BYTES = 64 << 10  # 64 KiB


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got: the head has been read, the body has not."""

    url: str
    """After all redirects."""
    response: urllib3.BaseHTTPResponse

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        return self.response.headers

    @property
    def length(self) -> int | None:
        """The ``Content-Length``; None where there is none that is a number."""
        text = self.headers.get("Content-Length", "")
        return int(text) if _LENGTH.fullmatch(text) else None

    def finish(self) -> None:
        """Give the connection back; the body should have been read to its end."""
        if self.length is None:
            self.drop()  # who knows where that is
            return
        self.response.drain_conn()
        self.response.release_conn()

    def discard(self) -> None:
        """Give the connection back if the body is short and there, else hang up: another handshake costs less."""
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            body = self.response.read1(_STEP_BYTES, decode_content=False)
        except HTTPError:
            body = b""
        if len(body) == self.length:
            self.finish()
        else:
            self.drop()

    def drop(self) -> None:
        """Hang up."""
        self.response.close()


class Wire:
    """The connections of one tier; several threads may ask at once."""

    def __init__(self, access: HubAccess) -> None:
        self.endpoint, self._origin = parse_endpoint(access.endpoint)
        self.patience = access.patience
        self._access = access
        self._lock = threading.RLock()
        self._pools = Pools(access)

    def asked(self, url: str, repo: str, answer: Answer) -> Asked:
        """``url`` as an error names it, and whether who gave ``answer`` saw a token."""
        return Asked(url, f"{self.endpoint}/{repo}", has_token=bool(self._token) and self.is_ours(answer.url))

    def is_ours(self, url: str) -> bool:
        """True if ``url`` is of the endpoint itself."""
        return find_origin(url) == self._origin

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask ``url``, and where it sends us, at most ten times.

        Raises:
            TransientError: nothing came, or nothing that makes sense.
            NetworkError: asking again cannot help.
        """
        at = url
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._ask(at, headers)
            if answer.status not in _REDIRECTS:
                return answer
            to = join_url(at, answer.headers.get("Location", ""))
            answer.discard()
            if to is None:
                raise TransientError(without_query(url), "redirected to what is no address")
            at = to
        raise NetworkError(without_query(url), f"redirected more than {_MAX_REDIRECTS} times", "Check HF_ENDPOINT")

    def _ask(self, url: str, headers: Mapping[str, str]) -> Answer:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        sent = {"User-Agent": self._agent, "Accept-Encoding": "identity", **headers}
        if self.is_ours(url) and self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        handled = sys.exception()
        try:
            with redacting():
                response = self._pools.find(url).request(
                    "GET", url, headers=sent, redirect=False, retries=False, preload_content=False
                )
        except HTTPError as exc:
            raise translate(url, exc, self.patience, handled=handled) from exc
        return Answer(url, response)

    def read_all(self, answer: Answer, max_bytes: int) -> bytes:
        """The whole body.

        Raises:
            TransientError: it broke off, or came too slowly.
            NetworkError: it is longer than ``max_bytes``.
        """
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        content, meter, handled = bytearray(), Meter(self.patience), sys.exception()
        try:
            while step := answer.response.read1(_STEP_BYTES, decode_content=False):
                content += step
                if len(content) > max_bytes:
                    raise NetworkError(without_query(answer.url), f"it answered with more than {max_bytes:,} bytes")
                if meter.is_too_slow(len(step)):
                    raise TransientError(without_query(answer.url), meter.verdict)
        except HTTPError as exc:
            raise translate(answer.url, exc, self.patience, handled=handled) from exc
        return bytes(content)

    def interrupt(self, thread: int) -> None:
        """If ``thread`` waits for an answer to begin, let its :meth:`get` fail now."""
        self._pools.waiting.interrupt(thread)

    def asked_less(self, attempts: int, longest_pause_s: float) -> Wire:
        """The same connections, over which what fails is asked for less often, and after shorter pauses."""
        other = copy(self)
        other.patience = replace(self.patience, attempts=attempts, longest_pause_s=longest_pause_s)
        return other

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._pools.close()

    @cached_property
    def _agent(self) -> str:
        # By name: to import the package itself would tie this room to all that it exports.
        return f"fastload/{import_module('fastload').__version__}"

    @property
    def _token(self) -> str:
        with self._lock:
            return self._found_token

    @cached_property
    def _found_token(self) -> str:
        token = find_token(self.endpoint) if self._access.token is None else self._access.token
        if not token.isascii() or not token.isprintable():
            raise UsageError("the token holds characters that no token has", "Set HF_TOKEN again, without quotes")
        return token


def join_url(base: str, reference: str) -> str | None:
    """Where ``reference`` in an answer from ``base`` leads; None where that is no place that can be asked."""
    try:
        url = urljoin(base, reference)
    except ValueError:
        return None
    return url if find_origin(url) else None
