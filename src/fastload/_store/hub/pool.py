"""Pools of connections: direct, or through a proxy, over TLS with the certificates that are to be trusted."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from fastload._store.hub.waiting import Waiting, watch
from fastload.errors import UsageError

if TYPE_CHECKING:
    import urllib3

    from fastload._store.hub.access import HubAccess

_CONNECTIONS_PER_HOST = 32
CA_HINT = "Set SSL_CERT_FILE (before REQUESTS_CA_BUNDLE) to the certificates that this network uses"
_NO_PROXY = "the proxy is no http or https address"
PROXY_HINT = "Check HTTPS_PROXY and NO_PROXY"


class Pools:
    """One pool for what is reached directly, and one for each proxy; made when they are first needed."""

    def __init__(self, access: HubAccess) -> None:
        self._access = access
        self._lock = threading.Lock()
        self.waiting = Waiting()
        self._made: dict[str | None, urllib3.PoolManager] = {}

    def find(self, url: str) -> urllib3.PoolManager:
        """The pool over which ``url`` is reached.

        Raises:
            UsageError: the proxy is no address, or the certificates cannot be read.
        """
        proxy = self._find_proxy(url)
        with self._lock:
            if proxy not in self._made:
                self._made[proxy] = _make_pool(self._access, proxy)
                watch(self._made[proxy], self.waiting)
            return self._made[proxy]

    def close(self) -> None:
        """Close the connections that are not in use.

        Now: what urllib3 is told to clear, it closes when nobody has it any more, and the frames of an error that came
        through a context manager may keep its pool until the collector comes by (since Python 3.12).
        """
        with self._lock:
            for manager in self._made.values():
                for key in manager.pools.keys():  # noqa: SIM118 - urllib3's container lets nobody iterate over it
                    pool = manager.pools.get(key)
                    if pool is not None:
                        pool.close()
                manager.clear()
            self._made.clear()

    def _find_proxy(self, url: str) -> str | None:
        from urllib.request import proxy_bypass  # noqa: PLC0415 - given the variable, it reads none

        parts = urlsplit(url)
        proxy = self._access.https_proxy if parts.scheme == "https" else self._access.http_proxy
        is_direct = not proxy or proxy_bypass(parts.netloc, {"no": self._access.no_proxy})
        return None if is_direct else proxy


def _make_pool(access: HubAccess, proxy: str | None) -> urllib3.PoolManager:
    import urllib3  # noqa: PLC0415 - only where the hub is asked

    timeout = urllib3.Timeout(connect=access.patience.connect_timeout_s, read=access.patience.read_timeout_s)
    context = _tls_context(access.ca_file)
    if proxy is None:
        return urllib3.PoolManager(maxsize=_CONNECTIONS_PER_HOST, timeout=timeout, ssl_context=context)
    parts = _split_proxy(proxy)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    basic_auth = f"{unquote(user)}:{unquote(password)}" if user else None
    return urllib3.ProxyManager(
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        proxy_headers=urllib3.make_headers(proxy_basic_auth=basic_auth),
        proxy_ssl_context=context,
        maxsize=_CONNECTIONS_PER_HOST,
        timeout=timeout,
        ssl_context=context,
    )


def _split_proxy(proxy: str) -> SplitResult:
    from urllib3.util import parse_url  # noqa: PLC0415

    url = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(url)
        is_spelt_so = url.split() == [url]  # older releases of urllib3 take a blank for a part of the name
        is_address = is_spelt_so and parts.scheme in {"http", "https"} and parse_url(url).host is not None
    except ValueError as exc:  # half of an IPv6 address, a port that is no number; LocationParseError is one too
        raise UsageError(_NO_PROXY, PROXY_HINT) from exc
    if not is_address:
        raise UsageError(_NO_PROXY, PROXY_HINT)
    return parts


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as exc:  # ssl.SSLError too: not PEM
        raise UsageError(f"no certificates can be read from {ca_file!r} ({exc.strerror or exc})", CA_HINT) from exc
