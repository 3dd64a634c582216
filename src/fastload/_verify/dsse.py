"""The envelope of a signature: are these the bytes that the holder of a key signed?

A Sigstore bundle v0.3 with a DSSE envelope (https://github.com/secure-systems-lab/dsse), which is what OpenSSF Model
Signing writes as ``model.sig``::

    {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": {"publicKey": {"hint": "…"}},
     "dsseEnvelope": {"payloadType": "application/vnd.in-toto+json", "payload": "…", "signatures": [{"sig": "…"}]}}

The key comes from the caller alone. What a bundle says about keys is not signed, so it never chooses one: it only helps
to explain a refusal. Nobody looks into the payload before its signature holds.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastload._verify.fields import as_array, as_object, as_text, check_is, parse_document, refusal
from fastload.errors import UnsupportedError, UsageError, escaped, quoted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

MAX_BUNDLE_BYTES = 16 << 20  # 16 MiB
"""Enough for some 40,000 files or shards. Compare a file's size with it before its bytes are read."""

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_OTHER_KEYS = "fastload verifies signatures by elliptic-curve keys (P-256, P-384, P-521)"


@dataclass(frozen=True, slots=True)
class SignedPayload:
    """Bytes that the holder of a key signed."""

    payload: bytes
    key_id: str
    """sha256 of the key as DER (SubjectPublicKeyInfo), as hex."""


@dataclass(frozen=True, slots=True)
class _Envelope:
    payload: bytes
    signature: bytes
    hint: str | None
    """Which key the bundle names: the sha256 of its PEM, where model-signing wrote it."""


def open_bundle(raw: bytes, key_pem: bytes, *, path: str) -> SignedPayload:
    """The payload of the bundle ``raw``, if the key ``key_pem`` signed it; ``path`` is where it lies, for messages.

    Raises:
        SignatureError: it is no such bundle, or another key signed it, or it was changed.
        UnsupportedError: it is signed by a certificate, the key is of another kind, or ``cryptography`` is missing.
        UsageError: ``key_pem`` is no public key.
    """
    if len(raw) > MAX_BUNDLE_BYTES:
        raise refusal(path, f"{len(raw):,} bytes", f"at most {MAX_BUNDLE_BYTES:,}")
    envelope = _parse_bundle(parse_document(raw, "a bundle", path), path)
    key = parse_key(key_pem)
    if not _is_signed(envelope, key):
        raise refusal(
            path,
            f"a signature that the key {_key_id(key)} did not make over this payload",
            "one that it made",
            _explain(envelope.hint, key),
        )
    return SignedPayload(envelope.payload, _key_id(key))


def _parse_bundle(bundle: dict[str, Any], path: str) -> _Envelope:
    check_is(bundle.get("mediaType"), MEDIA_TYPE, "the mediaType", path)
    hint = _parse_material(bundle.get("verificationMaterial"), path)
    envelope = as_object(bundle.get("dsseEnvelope"), "a dsseEnvelope", path)
    check_is(envelope.get("payloadType"), PAYLOAD_TYPE, "the payloadType", path)
    signatures = as_array(envelope.get("signatures"), "signatures", path)
    if len(signatures) != 1:
        raise refusal(path, f"{len(signatures)} signatures", "one")
    signature = as_object(signatures[0], "a signature", path)
    return _Envelope(
        payload=_decode(envelope.get("payload"), "the payload", path),
        signature=_decode(signature.get("sig"), "the signature", path),
        hint=hint,
    )


def _parse_material(value: Any, path: str) -> str | None:
    material = as_object(value, "verificationMaterial", path)
    if "x509CertificateChain" in material:
        raise _other_way(path, "certificate", "--certificate_chain CA.pem")
    if "certificate" in material or (material.get("tlogEntries") and "publicKey" not in material):
        raise _other_way(path, "sigstore", "--identity WHO --identity_provider URL")
    hint = as_object(material.get("publicKey"), "a publicKey", path).get("hint")
    return hint if type(hint) is str else None


def _other_way(path: str, method: str, options: str) -> UnsupportedError:
    return UnsupportedError(
        f"{quoted(path)} is signed by a certificate; {_OTHER_KEYS}",
        "Verify it with: pip install model-signing pyopenssl && "
        f"model_signing verify {method} MODEL --signature {escaped(shlex.quote(path))} {options}",
    )


def _decode(value: Any, what: str, path: str) -> bytes:
    text = as_text(value, what, path)
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:  # the latter for what is not ASCII
        raise refusal(path, f"{what}, which is not base64", "base64") from exc
    if base64.b64encode(decoded).decode("ascii") != text:  # Python takes bits after the end, and drops them
        raise refusal(path, f"{what} in another spelling of base64", "the standard one")
    return decoded


def parse_key(key_pem: bytes) -> EllipticCurvePublicKey:
    """The key that ``key_pem`` spells.

    Raises:
        UnsupportedError: it is of another kind, or ``cryptography`` is missing.
        UsageError: it is no public key, or not one alone.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415
    except ImportError as exc:
        what = "verifying a signature needs the package cryptography"
        raise UnsupportedError(what, "pip install 'cryptography>=42'") from exc
    if key_pem.count(b"-----BEGIN ") != 1:  # of several, the first alone would count
        raise _no_key()
    try:
        key = load_pem_public_key(key_pem)
    except UnsupportedAlgorithm as exc:
        raise UnsupportedError(f"the public key is of a kind that cryptography does not know; {_OTHER_KEYS}") from exc
    except ValueError as exc:
        raise _no_key() from exc
    kind = key.curve.name if isinstance(key, EllipticCurvePublicKey) else type(key).__name__.strip("_")
    if not isinstance(key, EllipticCurvePublicKey) or kind not in _CURVES:
        raise UnsupportedError(f"the public key is of the kind {kind}; {_OTHER_KEYS}", "Sign with such a key")
    return key


def _no_key() -> UsageError:
    return UsageError(
        "signature_key is not one public key in PEM (-----BEGIN PUBLIC KEY-----)",
        "From a private key: openssl pkey -in key.pem -pubout",
    )


def _is_signed(envelope: _Envelope, key: EllipticCurvePublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415

    digests = dict(zip(_CURVES, (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()), strict=True))
    for encode, digest in ((_encode, digests[key.curve.name]), (_encode_as_before, hashes.SHA256())):
        try:
            key.verify(envelope.signature, encode(envelope.payload), ECDSA(digest))
        except InvalidSignature:
            continue
        return True
    return False


def _encode(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: the type is signed too, and lengths keep the two apart."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"), len(payload), payload)


def _encode_as_before(payload: bytes) -> bytes:
    """What model-signing signed instead before 1.0, on any curve by SHA-256: Python's word for the payload.

    Two payloads have two words, and no encoding of DSSE's begins so: who has signed one has signed nothing else.
    """
    return f"DSSEV1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} {payload!r}".encode("ascii")


def _key_id(key: EllipticCurvePublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _explain(hint: str | None, key: EllipticCurvePublicKey) -> str:
    """Why a signature may not hold; the bundle's word for its key may be a lie, and decides nothing."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    ours = hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
    if hint in (None, "", ours):
        return "The payload was changed after it was signed, or another key signed it. Do not use the model"
    return f"The bundle says that another key signed it ({quoted(hint or '')}): give that one, if you trust it"
