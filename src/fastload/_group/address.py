"""At which address the other ranks of a group can reach this one."""

from __future__ import annotations

import ipaddress
import os
import socket

from fastload._system_file import read_boot_id

ANYWHERE = "192.0.2.1"
"""Is routed by the default route, and is nobody's (RFC 5737)."""
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_DISCARD_PORT = 9


def find_own_address(store_host: str | None) -> str:
    """The address that packets to ``store_host`` leave from, which all ranks could reach; None: nobody is elsewhere.

    Many machines know their own name as a loopback address, which nobody else reaches: there the default route decides.
    """
    if store_host is None or store_host in _LOCAL_NAMES:
        return "127.0.0.1"
    address = _find_source(store_host)
    if address is None or ipaddress.ip_address(address).is_loopback:
        return _find_source(ANYWHERE) or address or "127.0.0.1"
    return address


def _find_source(host: str) -> str | None:
    """Nothing is sent: connecting a datagram socket only looks up the route."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, _DISCARD_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None


def find_node() -> str:
    """What tells this machine from others: containers on one machine have different tiers, and names of their own."""
    return f"{os.uname().nodename}/{read_boot_id()}"
