"""Signatures to test with: made here by a test key, so that a hostile statement has one that holds."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from fastload._verify.signature import verify_bundle
from fastload.errors import FastloadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

PATH = "/m/llama/model.sig"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
IGNORED = [".git", ".gitattributes", ".github", ".gitignore", "model.sig"]


@cache
def key_of(who: str = "signer") -> EllipticCurvePrivateKey:
    """A key on P-256, the same for the same name throughout a run."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: Any) -> bytes:
    """The public half of a private key, as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def signature_of(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> str:
    """What the test key signs for it, in base64. Written anew from the DSSE specification."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    kind = payload_type.encode()
    encoded = b" ".join((b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload))
    return base64.b64encode(key_of().sign(encoded, ec.ECDSA(hashes.SHA256()))).decode()


def bundle_document(content: bytes, **changes: Any) -> dict[str, Any]:
    """A signed bundle as JSON; ``changes`` to its envelope, which they may break."""
    envelope = {
        "payload": base64.b64encode(content).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": signature_of(content), "keyid": ""}],
        **changes,
    }
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": hashlib.sha256(pem_of(key_of())).hexdigest()}},
        "dsseEnvelope": envelope,
    }


def bundle_of(statement: dict[str, Any] | bytes, **changes: Any) -> bytes:
    """The bytes of a signed bundle."""
    content = statement if isinstance(statement, bytes) else json.dumps(statement, indent=2).encode()
    return json.dumps(bundle_document(content, **changes)).encode()


def resource(name: Any, algorithm: Any = "sha256", digest: Any = None) -> dict[str, Any]:
    """An entry of a statement."""
    content = hashlib.sha256(str(name).encode()).hexdigest()
    return {"name": name, "algorithm": algorithm, "digest": content if digest is None else digest}


def signed(files: Mapping[str, bytes], ignored: Iterable[str] = IGNORED) -> dict[str, bytes]:
    """``files`` with a signature by the test key over all of them, but for those that are ignored."""
    left_out = list(ignored)
    entries = [
        resource(name, digest=hashlib.sha256(content).hexdigest())
        for name, content in sorted(files.items())
        if name not in left_out
    ]
    return {**files, "model.sig": bundle_of(statement_of(entries, ignore_paths=left_out))}


def write_key(folder: Path, *who: str) -> str:
    """The path of a public key, written into ``folder``: of the test key, or of another one."""
    path = folder / f"{'-'.join(who)}key.pem"
    path.write_bytes(pem_of(key_of(*who)))
    return str(path)


def sign(folder: Path) -> Path:
    """Sign all that is in it by the test key, which is left beside it."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    (folder / "model.sig").write_bytes(signed(files)["model.sig"])
    (folder.parent / "key.pem").write_bytes(pem_of(key_of()))
    return folder


def statement_of(resources: Iterable[Any], root: str | None = None, **serialization: Any) -> dict[str, Any]:
    """A statement with these resources; their root is computed unless it is given."""
    entries = list(resources)
    if root is None:
        root = hashlib.sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in entries)).hexdigest()
    method = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": IGNORED}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "llama", "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {"serialization": {**method, **serialization}, "resources": entries},
    }


def shards_of(*names: str, shard_size: Any = 100.0, **serialization: Any) -> dict[str, Any]:
    """A statement over shards of these names."""
    entries = [resource(name, "sha256-sharded-100") for name in names]
    return statement_of(entries, method="shards", shard_size=shard_size, **serialization)


def files_of(*names: str, **serialization: Any) -> dict[str, Any]:
    """A statement over files of these names."""
    return statement_of([resource(name) for name in names], **serialization)


def refusal(raw: bytes, key_pem: bytes | None = None) -> FastloadError:
    """What is said about it; by default the test key is asked for."""
    with pytest.raises(FastloadError) as caught:
        verify_bundle(raw, pem_of(key_of()) if key_pem is None else key_pem, path=PATH)
    assert len(str(caught.value)) < 2000
    return caught.value
