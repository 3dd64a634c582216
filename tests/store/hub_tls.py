"""A certificate authority of our own, and a server certificate for this machine that it signed."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@dataclass(frozen=True)
class PrivateAuthority:
    """What a company's network has."""

    ca_file: str
    """Its certificate, which clients must be told to trust."""
    server: ssl.SSLContext
    """What a server on this machine speaks TLS with."""


def make_authority(folder: Path) -> PrivateAuthority:
    """A new authority; its files are left in ``folder``."""
    ca, ca_key = str(folder / "ca.pem"), str(folder / "ca.key")
    own, own_key = str(folder / "server.pem"), str(folder / "server.key")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(*_KEY, "-x509", "-subj", "/CN=Private CA", *usage, "-keyout", ca_key, "-out", ca)
    names = ("-addext", "subjectAltName=IP:127.0.0.1,IP:127.0.0.2", "-addext", "basicConstraints=critical,CA:FALSE")
    signed = ("-CA", ca, "-CAkey", ca_key)
    _openssl(*_KEY, "-x509", "-subj", "/CN=This machine", *names, *signed, "-keyout", own_key, "-out", own)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own, own_key)
    return PrivateAuthority(ca, server)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", "req", *arguments], check=True, capture_output=True)
