"""A signature holds for what its key signed, and nothing near it is taken for that."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from fastload._verify import dsse
from fastload._verify.path import is_any_index
from fastload._verify.signature import SIGNATURE_NAME, SignedDigests, find_unsigned
from fastload._verify.signature import verify_bundle as verify
from fastload._verify.statement import ShardedFile, SignedShard, WholeFile
from fastload._verify.training_state import may_name
from fastload.errors import SignatureError, UnsupportedError, UsageError
from signing import (
    IGNORED,
    PATH,
    bundle_document,
    bundle_of,
    files_of,
    key_of,
    pem_of,
    refusal,
    resource,
    shards_of,
    signature_of,
    statement_of,
)

pytest.importorskip("cryptography", reason="signatures are verified by cryptography: pip install 'cryptography>=42'")

GOLDEN = Path(__file__).parent / "golden" / "oms"
MODEL = GOLDEN / "model"
FILES = ["config.json", "extra-notes.txt", "extra/vocab.txt", "model.safetensors"]
LEFT_OUT = "scratch.txt"
HASHES: dict[str, Any] = {"sha256": hashlib.sha256, "blake2b": hashlib.blake2b, "blake3": blake3}
REAL = sorted(path.stem for path in GOLDEN.glob("*-p*.sig"))


def golden(name: str) -> SignedDigests:
    """What a signature by model-signing says."""
    key = GOLDEN / f"{name.rpartition('-')[2]}.pub.pem"
    return verify((GOLDEN / f"{name}.sig").read_bytes(), key.read_bytes(), path=PATH)


def verified(raw: bytes) -> SignedDigests:
    """What the test key signed."""
    return verify(raw, pem_of(key_of()), path=PATH)


def said(raw: bytes) -> SignatureError:
    """Why it is refused."""
    error = refusal(raw)
    assert isinstance(error, SignatureError) and error.path == PATH and error.expected and error.hint
    return error


# Signatures made by the real model-signing


def test_the_golden_signatures_are_of_all_methods_hashes_and_curves() -> None:
    spelled = {tuple(name.split("-")) for name in REAL}
    assert {method for method, *_ in spelled} == {"files", "shards", "cli"}
    assert {name[-1] for name in spelled} == {"p256", "p384", "p521"}
    assert {golden(name).algorithm for name in REAL} == set(HASHES)


@pytest.mark.parametrize("name", REAL)
def test_what_model_signing_signs_is_accepted_and_is_what_the_files_hold(name: str) -> None:
    signed = golden(name)
    assert sorted(signed.files) == FILES
    assert LEFT_OUT in signed.ignored and signed.path == PATH
    for path, file in signed.files.items():
        content = (MODEL / path).read_bytes()
        assert file.algorithm == signed.algorithm
        if isinstance(file, WholeFile):
            assert file.digest == HASHES[file.algorithm](content).hexdigest()
            continue
        assert file.size == len(content)
        assert b"".join(content[shard.start : shard.end] for shard in file.shards) == content
        for shard in file.shards:
            assert shard.digest == HASHES[file.algorithm](content[shard.start : shard.end]).hexdigest()
    assert find_unsigned(signed, [*FILES, LEFT_OUT, SIGNATURE_NAME]) == ()


def test_shards_are_told_from_files() -> None:
    assert isinstance(golden("files-sha256-p256").files["model.safetensors"], WholeFile)
    shards = golden("shards-sha256-p256").files["model.safetensors"]
    assert isinstance(shards, ShardedFile) and [shard.end for shard in shards.shards] == [1000, 2000, 2480]


@pytest.mark.parametrize("curve", ["p256", "p384", "p521"])
def test_the_key_id_is_what_openssl_computes(curve: str) -> None:
    """The sha256 of ``openssl pkey -pubin -outform DER``: PEM is DER in base64 between two lines."""
    lines = (GOLDEN / f"{curve}.pub.pem").read_bytes().split(b"\n")
    der = base64.b64decode(b"".join(lines[1:-2]))
    assert golden(f"files-sha256-{curve}").key_id == hashlib.sha256(der).hexdigest()


def test_the_root_names_the_files_and_not_the_key() -> None:
    roots = {golden(name).root for name in ("files-sha256-p256", "files-sha256-p384", "files-sha256-p521", "cli-p384")}
    assert len(roots) == 1 != len({*roots, golden("files-blake3-p256").root})


@pytest.mark.parametrize("name", REAL)
def test_another_key_is_refused(name: str) -> None:
    other = {"p256": "p384", "p384": "p521", "p521": "p256"}[name.rpartition("-")[2]]
    raw = (GOLDEN / f"{name}.sig").read_bytes()
    for pem in (pem_of(key_of()), (GOLDEN / f"{other}.pub.pem").read_bytes()):
        error = refusal(raw, pem)
        assert isinstance(error, SignatureError) and "did not make" in error.found
        assert f"another key signed it ('{json.loads(raw)['verificationMaterial']['publicKey']['hint']}')" in error.hint


def test_a_certificate_is_left_to_model_signing() -> None:
    error = refusal((GOLDEN / "certificate.sig").read_bytes())
    assert isinstance(error, UnsupportedError)
    assert f"model_signing verify certificate MODEL --signature {PATH} --certificate_chain" in error.hint


@pytest.mark.parametrize("path", ["/it's here/model.sig", "/$HOME/`id`/model.sig", f"/{'a' * 400}/model.sig"])
def test_what_verifies_a_certificate_can_be_pasted(path: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        verify((GOLDEN / "certificate.sig").read_bytes(), pem_of(key_of()), path=path)
    command = caught.value.hint.removeprefix("Verify it with: ")
    said = 'pip() { :; }; model_signing() { printf "%s\n" "$@"; }; ' + command
    done = subprocess.run(["bash", "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:5] == ["verify", "certificate", "MODEL", "--signature", path]


# By the model-signing before 1.0, which signed another statement, over bytes that it had encoded in a way of its own

OLDER = ["older-sha256-q256", "older-sha256-q384", "older-blake2-q256"]


@pytest.mark.parametrize("name", OLDER)
def test_what_model_signing_signed_before_it_had_a_format_is_accepted(name: str) -> None:
    signed = golden(name)
    assert sorted(signed.files) == FILES
    for path, file in signed.files.items():
        assert isinstance(file, WholeFile) and file.algorithm == signed.algorithm
        assert file.digest == HASHES[file.algorithm]((MODEL / path).read_bytes()).hexdigest()
    assert signed.root == golden({"sha256": "files-sha256-p256", "blake2b": "files-blake2-p384"}[signed.algorithm]).root
    assert find_unsigned(signed, [*FILES, LEFT_OUT, SIGNATURE_NAME]) == (LEFT_OUT,)  # it does not say what it left out


@pytest.mark.parametrize("name", OLDER)
def test_an_older_signature_holds_for_its_key_and_its_bytes(name: str) -> None:
    raw = (GOLDEN / f"{name}.sig").read_bytes()
    document = json.loads(raw)
    payload = base64.b64decode(document["dsseEnvelope"]["payload"])
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload.replace(b'"config.json"', b'"conf1g.json"')).decode()
    key = (GOLDEN / f"{name.rpartition('-')[2]}.pub.pem").read_bytes()
    for content, pem in ((raw, pem_of(key_of())), (json.dumps(document).encode(), key)):
        error = refusal(content, pem)
        assert isinstance(error, SignatureError) and "did not make" in error.found


def test_of_the_older_types_those_of_whole_files_alone_are_taken() -> None:
    error = refusal((GOLDEN / "older-shards-q256.sig").read_bytes(), (GOLDEN / "q256.pub.pem").read_bytes())
    assert isinstance(error, SignatureError)
    assert "https://model_signing/ShardDigests/v0.1" in error.found
    assert "sign the model anew" in error.hint.lower() and "model-signing 1.0" in error.hint


def older_statement_of(*names: Any, **changes: Any) -> dict[str, Any]:
    """A statement as before 1.0 over files of these names; ``changes`` to the last subject."""
    annotations = {"actual_hash_algorithm": "file-sha256"}
    subjects: list[dict[str, Any]] = [
        {"name": name, "digest": {"sha256": resource(name)["digest"]}, "annotations": annotations} for name in names
    ]
    if changes:
        subjects[-1] |= changes
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": "Unused, just passed due to API requirements"},
    }


@pytest.mark.parametrize("changes", [{}, {"annotations": {}}, {"annotations": {"more": 1}}])
def test_an_older_statement_is_accepted_without_a_flaw(changes: dict[str, Any]) -> None:
    signed = verified(bundle_of(older_statement_of("a.json", "b.safetensors", **changes)))
    assert signed.files["b.safetensors"] == WholeFile("sha256", hashlib.sha256(b"b.safetensors").hexdigest())
    assert (list(signed.files), signed.algorithm, signed.ignored) == (["a.json", "b.safetensors"], "sha256", ())


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (older_statement_of(), "no resources"),
        (older_statement_of("b", "a"), "the resource 'a' after 'b'"),
        (older_statement_of("a", "a"), "the resource 'a' after 'a'"),
        (older_statement_of("a", "a/b"), "as a file"),
        (older_statement_of("../a"), "plain and relative"),
        (older_statement_of(7), "the name of a resource that is no text"),
        (older_statement_of("a", name=None), "the name of a resource that is no text"),
        (older_statement_of("a", digest="ab" * 32), "the digest of a subject that is no object"),
        (older_statement_of("a", digest={"sha512": "ab" * 64}), "the digest of 'a' that is no text"),
        (older_statement_of("a", digest={"sha256": "ab" * 64}), "the digest of 'a': "),
        (older_statement_of("a", annotations=[]), "annotations that is no object"),
        (older_statement_of("a", annotations={"actual_hash_algorithm": None}), "an actual_hash_algorithm that is no"),
        (older_statement_of("a", annotations={"actual_hash_algorithm": "file-md5"}), "'file-md5'"),
        (older_statement_of("a", annotations={"actual_hash_algorithm": "file-sha256-1000"}), "'file-sha256-1000'"),
        (
            older_statement_of("a", "b", annotations={"actual_hash_algorithm": "file-blake2b"}),
            "the algorithm 'blake2b'",
        ),
        ({**older_statement_of("a"), "subject": None}, "subject that is no array"),
        ({**older_statement_of("a"), "subject": ["a"]}, "a subject that is no object"),
        ({**older_statement_of("a"), "predicate": []}, "a predicate that is no object"),
    ],
)
def test_older_statements_that_make_no_sense_are_refused(statement: dict[str, Any], expected: str) -> None:
    assert expected in said(bundle_of(statement)).found


# The bundle


def test_a_signature_by_the_test_key_is_accepted_without_a_flaw() -> None:
    signed = verified(bundle_of(files_of("a.json", "b.safetensors")))
    assert list(signed.files) == ["a.json", "b.safetensors"]
    assert signed.files["a.json"] == WholeFile("sha256", hashlib.sha256(b"a.json").hexdigest())
    assert signed.ignored == tuple(IGNORED)


@pytest.mark.parametrize(
    "material",
    [
        {"certificate": {"rawBytes": "AA=="}, "tlogEntries": [{}]},
        {"certificate": {"rawBytes": "AA=="}, "publicKey": {"hint": "x"}},
        {"tlogEntries": [{"logIndex": "1"}]},
    ],
)
def test_keyless_signatures_are_left_to_model_signing(material: dict[str, Any]) -> None:
    document = bundle_document(b"{}")
    error = refusal(json.dumps({**document, "verificationMaterial": material}).encode())
    assert isinstance(error, UnsupportedError)
    assert "model_signing verify sigstore MODEL" in error.hint and "--identity " in error.hint


def test_an_entry_in_a_transparency_log_is_no_certificate() -> None:
    """A signature by a key may be logged too."""
    document = json.loads(bundle_of(files_of("a")))
    document["verificationMaterial"]["tlogEntries"] = [{"logIndex": "1"}]
    assert list(verified(json.dumps(document).encode()).files) == ["a"]


@pytest.mark.parametrize("hint", ["0" * 64, "ML_DSA_65:00", "", None, 7, {"a": 1}, "../../key.pem"])
def test_the_hint_of_a_key_decides_nothing(hint: Any) -> None:
    document = json.loads(bundle_of(files_of("a")))
    document["verificationMaterial"]["publicKey"]["hint"] = hint
    assert list(verified(json.dumps(document).encode()).files) == ["a"]


def test_a_hint_that_lies_does_not_bring_a_key_in() -> None:
    """The bundle carries the key that signed it, as older ones do, and names ours."""
    raw = bundle_of(files_of("a"))
    document = json.loads(raw)
    ours = pem_of(key_of("somebody else"))
    document["verificationMaterial"]["publicKey"] = {
        "hint": hashlib.sha256(ours).hexdigest(),
        "rawBytes": base64.b64encode(pem_of(key_of())).decode(),
        "keyDetails": "PKIX_ECDSA_P256_SHA_256",
    }
    error = refusal(json.dumps(document).encode(), ours)
    assert isinstance(error, SignatureError) and "was changed" in error.hint


def test_a_terminal_escape_in_a_hint_is_not_printed() -> None:
    document = json.loads(bundle_of(files_of("a")))
    document["verificationMaterial"]["publicKey"]["hint"] = "\x1b[2J" + "x" * 5000
    error = refusal(json.dumps(document).encode(), pem_of(key_of("somebody else")))
    assert "\x1b" not in str(error) and len(str(error)) < 1000


def test_a_changed_payload_is_refused() -> None:
    signature = signature_of(json.dumps(files_of("a.safetensors")).encode())
    error = said(bundle_of(files_of("b.safetensors"), signatures=[{"sig": signature}]))
    assert "did not make" in error.found and "was changed" in error.hint


def test_a_signature_of_another_payload_type_is_refused() -> None:
    """DSSE signs the type too: what was signed as something else is no statement."""
    payload = json.dumps(files_of("a")).encode()
    assert "did not make" in said(bundle_of(payload, signatures=[{"sig": signature_of(payload, "text/plain")}])).found


def test_a_signature_over_the_bare_payload_is_refused() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    payload = json.dumps(files_of("a")).encode()
    bare = key_of().sign(payload, ec.ECDSA(hashes.SHA256()))
    assert "did not make" in said(bundle_of(payload, signatures=[{"sig": base64.b64encode(bare).decode()}])).found


@pytest.mark.parametrize("sig", ["", "AA==", "MAA=", base64.b64encode(b"\x30\x06\x02\x01\x00\x02\x01\x00").decode()])
def test_a_signature_that_is_none_is_refused(sig: str) -> None:
    """The last one is r = s = 0, which careless verifiers take for any message."""
    assert "did not make" in said(bundle_of(files_of("a"), signatures=[{"sig": sig}])).found


@pytest.mark.parametrize("count", [0, 2, 3])
def test_there_is_one_signature(count: int) -> None:
    payload = json.dumps(files_of("a")).encode()
    entries = [{"sig": signature_of(payload)} for _ in range(count)]
    error = said(bundle_of(payload, signatures=entries))
    assert (error.found, error.expected) == (f"{count} signatures", "one")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"payloadType": "application/json"}, "the payloadType: 'application/json'"),
        ({"payloadType": None}, "the payloadType: something that is no text"),
        ({"signatures": None}, "signatures that is no array"),
        ({"signatures": {"sig": ""}}, "signatures that is no array"),
        ({"signatures": ["AA=="]}, "a signature that is no object"),
        ({"signatures": [{}]}, "the signature that is no text"),
        ({"signatures": [{"sig": "A A="}]}, "the signature, which is not base64"),
        ({"signatures": [{"sig": "\u00e9A=="}]}, "the signature, which is not base64"),
        ({"payload": None}, "the payload that is no text"),
        ({"payload": "e30=\n"}, "the payload, which is not base64"),
        ({"payload": "e30"}, "the payload, which is not base64"),
        ({"payload": "e30=e30="}, "the payload, which is not base64"),
        ({"payload": "-_8="}, "the payload, which is not base64"),
        ({"payload": "e31="}, "the payload in another spelling of base64"),
    ],
)
def test_malformed_envelopes_are_refused(changes: dict[str, Any], found: str) -> None:
    assert said(bundle_of(files_of("a"), **changes)).found == found


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"mediaType": "application/vnd.dev.sigstore.bundle.v0.2+json"}, "the mediaType: "),
        ({"mediaType": None}, "the mediaType: "),
        ({"verificationMaterial": None}, "verificationMaterial that is no object"),
        ({"verificationMaterial": {}}, "a publicKey that is no object"),
        ({"verificationMaterial": {"tlogEntries": []}}, "a publicKey that is no object"),
        ({"verificationMaterial": {"publicKey": "x"}}, "a publicKey that is no object"),
        ({"dsseEnvelope": None}, "a dsseEnvelope that is no object"),
        ({"dsseEnvelope": [1]}, "a dsseEnvelope that is no object"),
    ],
)
def test_malformed_bundles_are_refused(changes: dict[str, Any], found: str) -> None:
    document = bundle_document(json.dumps(files_of("a")).encode())
    assert said(json.dumps({**document, **changes}).encode()).found.startswith(found)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"null", b"[]", b'"x"', b"\x80", b"\0" * 100, b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000],
    ids=range(10),
)
def test_bytes_that_are_nothing_are_refused(raw: bytes) -> None:
    said(raw)


def test_keys_that_are_there_twice_are_refused() -> None:
    raw = bundle_of(files_of("a"))
    for key in (b'"payload": ', b'"mediaType": ', b'"sig": ', b'"dsseEnvelope": '):
        assert "twice" in said(raw.replace(key, key + b"0, " + key, 1)).found
    payload = json.dumps(files_of("a.safetensors")).encode()
    for key in (b'"resources": ', b'"digest": ', b'"name": ', b'"predicate": ', b'"sha256": '):
        assert "twice" in said(bundle_of(payload.replace(key, key + b"0, " + key, 1))).found


def test_too_much_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsse, "MAX_BUNDLE_BYTES", 100)
    error = said(b"{" * 101)
    assert (error.found, error.expected) == ("101 bytes", "at most 100")


@pytest.mark.parametrize(
    "piece", [b"[],", b"{},", b"-1,", b'"aa",', b'{"a":' * 90 + b"0" + b"}" * 90 + b",", b'{"name":"a"},']
)
def test_what_is_full_of_values_that_no_signature_needs_is_refused_before_it_is_parsed(piece: bytes) -> None:
    """Each would take up to fifty times its bytes: in the bundle, which anybody may write, and in what a key signed."""
    crowd = b'{"crowd":[' + piece * ((1 << 20) // len(piece)) + b"0],"
    for what, raw in (
        ("a bundle", crowd + b"".join(bundle_of(files_of("a")).partition(b"{")[2:])),
        ("a payload", bundle_of(crowd + json.dumps(files_of("a")).encode()[1:])),
    ):
        tracemalloc.start()
        try:
            assert said(raw).found.startswith(f"{what} with more than ")
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


def test_the_densest_signatures_are_no_such_flood() -> None:
    """Of files with short names, as model-signing writes them today and did, without a space."""
    names = sorted(f"{number:x}" for number in range(20_000))
    for statement in (files_of(*names), shards_of(*(f"{name}:0:1" for name in names)), older_statement_of(*names)):
        assert len(verified(bundle_of(json.dumps(statement, separators=(",", ":")).encode())).files) == len(names)


def test_no_payload_is_parsed_before_its_signature_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("fastload._verify.signature.parse_statement")
    assert isinstance(refusal(bundle_of(files_of("a")), pem_of(key_of("somebody else"))), SignatureError)
    with pytest.raises(NameError):
        verified(bundle_of(files_of("a")))


# The key


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"ssh-ed25519 AAAA",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"\x00\xff",
    ],
    ids=range(6),
)
def test_what_is_no_key_is_a_wrong_setting(pem: bytes) -> None:
    error = refusal(bundle_of(files_of("a")), pem)
    assert isinstance(error, UsageError) and "signature_key" in str(error)


def test_a_private_key_is_a_wrong_setting() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = key_of().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    error = refusal(bundle_of(files_of("a")), pem)
    assert isinstance(error, UsageError) and "openssl pkey" in error.hint
    assert pem.split(b"\n")[1].decode() not in str(error)


def test_of_two_keys_none_is_chosen() -> None:
    both = pem_of(key_of()) + pem_of(key_of("somebody else"))
    assert isinstance(refusal(bundle_of(files_of("a")), both), UsageError)


def other_keys() -> dict[str, bytes]:
    """Keys that are none of ours, by what they are called."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    return {
        "Ed25519PublicKey": pem_of(ed25519.Ed25519PrivateKey.generate()),
        "RSAPublicKey": pem_of(rsa.generate_private_key(65537, 2048)),
        "secp256k1": pem_of(ec.generate_private_key(ec.SECP256K1())),
        "secp224r1": pem_of(ec.generate_private_key(ec.SECP224R1())),
    }


def test_keys_of_another_kind_are_named() -> None:
    for kind, pem in other_keys().items():
        error = refusal(bundle_of(files_of("a")), pem)
        assert isinstance(error, UnsupportedError) and kind in str(error) and "P-256, P-384, P-521" in str(error)


def test_a_key_that_cryptography_does_not_know_is_no_bug() -> None:
    """An algorithm with an object identifier of nobody's, 1.2.3.4.5."""
    der = bytes.fromhex("300d 3006 0604 2a030405 0303 00 00 00".replace(" ", ""))
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(der) + b"\n-----END PUBLIC KEY-----\n"
    error = refusal(bundle_of(files_of("a")), pem)
    assert isinstance(error, UnsupportedError | UsageError)  # the latter with older ones


def test_cryptography_is_imported_only_for_a_signature() -> None:
    """The core has no such dependency, and its import takes longer than a small load."""
    program = "import sys, fastload._verify.signature; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_without_cryptography_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    raw, pem = (GOLDEN / "files-sha256-p256.sig").read_bytes(), (GOLDEN / "p256.pub.pem").read_bytes()
    monkeypatch.setitem(sys.modules, "cryptography", None)
    error = refusal(raw, pem)
    assert isinstance(error, UnsupportedError) and error.hint == "pip install 'cryptography>=42'"
    assert isinstance(refusal((GOLDEN / "certificate.sig").read_bytes(), pem), UnsupportedError)


# The statement: each of these has a signature that holds


def changed(**changes: Any) -> dict[str, Any]:
    """A statement with other values; None takes the key away."""
    statement = {**files_of("a", "b"), **changes}
    return {key: value for key, value in statement.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "the _type of the statement: "),
        ({"_type": None}, "the _type of the statement: "),
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "the predicateType: "),
        ({"predicateType": "https://model_signing/Digests/v0.1"}, "the predicateType: "),
        ({"predicateType": None}, "the predicateType: "),
        ({"predicate": None}, "a predicate that is no object"),
        ({"predicate": {}}, "a serialization that is no object"),
        ({"predicate": {"serialization": files_of("a")["predicate"]["serialization"]}}, "resources that is no array"),
        ({"subject": None}, "subject that is no array"),
        ({"subject": []}, "0 subjects"),
        ({"subject": files_of("a", "b")["subject"] * 2}, "2 subjects"),
        ({"subject": ["x"]}, "a subject that is no object"),
        ({"subject": [{"name": "x"}]}, "the digest of the subject that is no object"),
        ({"subject": [{"digest": {}}]}, "the digest of the subject that is no text"),
        ({"subject": [{"digest": {"sha512": "00" * 64}}]}, "the digest of the subject that is no text"),
        ({"subject": [{"digest": {"sha256": "AB" * 32}}]}, "the digest of the subject: 'AB"),
        ({"subject": [{"digest": {"sha256": "00" * 32}}]}, "resources with the root digest "),
    ],
)
def test_malformed_statements_are_refused(changes: dict[str, Any], found: str) -> None:
    assert said(bundle_of(changed(**changes))).found.startswith(found)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": NaN}', b"[" * 100_000], ids=range(7))
def test_a_payload_that_is_nothing_is_refused(payload: bytes) -> None:
    said(bundle_of(payload))


@pytest.mark.parametrize(
    ("serialization", "found"),
    [
        ({"method": "tensors"}, "the method 'tensors'"),
        ({"method": None}, "a method that is no text"),
        ({"hash_type": "md5"}, "the hash_type 'md5'"),
        ({"hash_type": "sha1"}, "the hash_type 'sha1'"),
        ({"hash_type": "blake2"}, "the hash_type 'blake2'"),
        ({"hash_type": "SHA256"}, "the hash_type 'SHA256'"),
        ({"hash_type": ["sha256"]}, "a hash_type that is no text"),
        ({"hash_type": "blake2b"}, "the algorithm 'sha256' of 'a'"),
        ({"hash_type": "blake3"}, "the algorithm 'sha256' of 'a'"),
        ({"method": "shards"}, "a shard_size that is none"),
        ({"method": "shards", "shard_size": 100}, "the shard 'a'"),
        ({"ignore_paths": None}, "ignore_paths that is no array"),
        ({"ignore_paths": "a"}, "ignore_paths that is no array"),
        ({"ignore_paths": [7]}, "an ignored path that is no text"),
    ],
)
def test_malformed_serializations_are_refused(serialization: dict[str, Any], found: str) -> None:
    assert said(bundle_of(files_of("a", "b", **serialization))).found == found


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        (resource("b", "md5", "00" * 16), "the algorithm 'md5' of 'b'"),
        (resource("b", "sha256", "00" * 16), "the digest of 'b': '000"),
        (resource("b", "sha256", "AB" * 32), "the digest of 'b': 'AB"),
        (resource("b", "sha256", "0x" + "00" * 31), "the digest of 'b': '0x"),
        (resource("b", "sha256", "00 " * 32), "the digest of 'b': '00 00"),
        (resource("b", "sha256", "zz" * 32), "the digest of 'b': 'zz"),
        (resource("b", "sha256", "\u0660" * 64), "the digest of 'b': '"),
        (resource("b", "sha256", 7), "the digest of 'b' that is no text"),
        (resource("b", "blake3"), "the algorithm 'blake3' of 'b'"),
        (resource("b", "sha256-sharded-100"), "the algorithm 'sha256-sharded-100' of 'b'"),
        (resource("b", 7), "the algorithm of 'b' that is no text"),
        (resource(7), "the name of a resource that is no text"),
        (resource("../b"), "the path '../b', which is not plain and relative"),
        (resource("/etc/passwd"), "the path '/etc/passwd', which is not plain and relative"),
        (resource("b/../../c"), "the path 'b/../../c', which is not plain and relative"),
        (resource("b//c"), "the path 'b//c', which is not plain and relative"),
        (resource("."), "the path '.', which is not plain and relative"),
        (resource("b\\c"), "the path 'b\\c', with a character that no path should hold"),
        (resource("b\x00"), "the path 'b\\x00', with a character that no path should hold"),
        (resource(".fastload/manifests/x.json"), "the path '.fastload/manifests/x.json', where fastload keeps"),
        ("b", "a resource that is no object"),
    ],
)
def test_malformed_resources_are_refused(entry: Any, found: str) -> None:
    raw = bundle_of(statement_of([resource("a"), entry], root="00" * 32))
    assert said(raw).found.startswith(found)


def test_a_statement_over_nothing_is_refused() -> None:
    assert said(bundle_of(files_of())).found == "no resources"


def roots() -> list[tuple[list[dict[str, Any]], str]]:
    """Resources that are not those of the subject's digest."""
    first, second, third = resource("a"), resource("b"), resource("c")
    two = statement_of([first, second])["subject"][0]["digest"]["sha256"]
    three = statement_of([first, second, third])["subject"][0]["digest"]["sha256"]
    return [
        ([first, third], three),  # one is missing
        ([first, second, third], two),  # one was added
        ([first, {**second, "digest": "00" * 32}], two),
        ([{**first, "digest": second["digest"]}, {**second, "digest": first["digest"]}], two),
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_subject_is_the_digest_of_the_resources(number: int) -> None:
    entries, root = roots()[number]
    error = said(bundle_of(statement_of(entries, root)))
    assert error.found.startswith("resources with the root digest ") and root in error.expected


@pytest.mark.parametrize(
    "names", [("b", "a"), ("a", "a"), ("a", "c", "b"), ("a", "b", "a"), ("a-b", "a/b", "a+b"), ("a/b", "a-b", "a+b")]
)
def test_resources_are_each_there_once_and_sorted(names: tuple[str, ...]) -> None:
    error = said(bundle_of(files_of(*names)))
    assert " after " in error.found and error.expected == "each once, sorted by name"


@pytest.mark.parametrize("names", [("a/b", "a-b", "a.b"), ("a-b", "a.b", "a/b")])
def test_both_ways_to_sort_are_accepted(names: tuple[str, ...]) -> None:
    """The reference sorts folder by folder (pathlib), the specification and the Go implementation by the whole name."""
    assert sorted(verified(bundle_of(files_of(*names))).files) == sorted(names)


def test_a_file_that_is_a_folder_too_is_refused() -> None:
    assert said(bundle_of(files_of("a", "a/b"))).expected == "no file that is a folder too"


def test_what_the_format_may_gain_is_passed_over() -> None:
    statement = files_of("a")
    statement["more"] = statement["predicate"]["more"] = statement["predicate"]["resources"][0]["uri"] = {"x": [1.5]}
    statement["predicate"]["serialization"]["allow_symlinks"] = True
    assert list(verified(bundle_of(statement)).files) == ["a"]


# Shards


@pytest.mark.parametrize("size", [100, 100.0])
@pytest.mark.parametrize("algorithm", ["sha256", "sha256-sharded-100"])
def test_shards_are_read_as_both_implementations_write_them(size: float, algorithm: str) -> None:
    entries = [resource(name, algorithm) for name in ("a/b:0:7", "w:0:100", "w:100:150")]
    signed = verified(bundle_of(statement_of(entries, method="shards", shard_size=size)))
    shards = tuple(
        SignedShard(start, end, hashlib.sha256(f"w:{start}:{end}".encode()).hexdigest())
        for start, end in ((0, 100), (100, 150))
    )
    assert signed.files["w"] == ShardedFile("sha256", shards) and signed.files["w"].size == 150


def test_shards_are_put_in_order_where_they_are_sorted_by_name() -> None:
    names = [f"w:{start}:{start + 100}" for start in range(0, 1200, 100)]
    for order in (names, sorted(names)):
        file = verified(bundle_of(shards_of(*order))).files["w"]
        assert isinstance(file, ShardedFile) and [shard.start for shard in file.shards] == list(range(0, 1200, 100))
    assert names != sorted(names)


def test_a_name_with_colons_keeps_them() -> None:
    assert list(verified(bundle_of(shards_of("a:0:5:0:100"))).files) == ["a:0:5"]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("w:100:200",), "a gap before the shard 'w:100:200'"),
        (("w:0:100", "w:150:200"), "a gap before the shard 'w:150:200'"),
        (("w:0:100", "w:50:200"), "an overlap before the shard 'w:50:200'"),
        (("w:0:100", "w:0:100"), "the resource 'w:0:100' after 'w:0:100'"),
        (("w:0:100", "w:0:200"), "an overlap before the shard 'w:0:200'"),
        (("w:0:100", "w:100:100"), "the shard 'w:100:100', without bytes"),
        (("w:0:100", "w:100:50"), "the shard 'w:100:50', without bytes"),
        (("w:100:200", "w:0:100"), "the resource 'w:0:100' after 'w:100:200'"),
        (("v:0:100", "w:100:200"), "a gap before the shard 'w:100:200'"),
        (("w",), "the shard 'w'"),
        (("w:0",), "the shard 'w:0'"),
        ((":0:1",), "the shard ':0:1'"),
        (("w:0:0",), "the shard 'w:0:0'"),
        (("w:-1:100",), "the shard 'w:-1:100'"),
        (("w:+0:100",), "the shard 'w:+0:100'"),
        (("w:00:100",), "the shard 'w:00:100'"),
        (("w:0:0x10",), "the shard 'w:0:0x10'"),
        (("w:0: 100",), "the shard 'w:0: 100'"),
        (("w:0:1_0",), "the shard 'w:0:1_0'"),
        (("w:0:\u0661",), "the shard 'w:0:\u0661'"),
        (("w:0:1" + "0" * 30,), "the shard 'w:0:1000"),
        (("../w:0:100",), "the path '../w', which is not plain and relative"),
        (("/w:0:100",), "the path '/w', which is not plain and relative"),
        (("w:0:100", "w/x:0:100"), "the path 'w/x', and 'w' as a file"),
    ],
)
def test_shards_that_do_not_make_up_files_are_refused(names: tuple[str, ...], found: str) -> None:
    assert said(bundle_of(shards_of(*names))).found.startswith(found)


@pytest.mark.parametrize("size", [0, -1, 0.5, 1e30, True, "100", None, [100], 2**70])
def test_a_shard_size_that_is_none_is_refused(size: Any) -> None:
    assert said(bundle_of(shards_of("w:0:100", shard_size=size))).found == "a shard_size that is none"


def test_a_shard_size_that_contradicts_the_resources_is_refused() -> None:
    assert said(bundle_of(shards_of("w:0:100", shard_size=101))).found.startswith("the algorithm 'sha256-sharded-100'")


# What was left out, and what the snapshot holds


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("model.safetensors", "ignore_paths with 'model.safetensors'"),
        ("unet/x.safetensors", "ignore_paths with 'unet/x.safetensors'"),
        ("*.safetensors", "ignore_paths with '*.safetensors'"),
        ("model.safetensors.index.json", "ignore_paths with 'model.safetensors.index.json'"),
        ("model.safetensors.index.fp16.json", "ignore_paths with 'model.safetensors.index.fp16.json'"),
        ("config.json", "ignore_paths with 'config.json'"),
        ("pytorch_model.bin", "ignore_paths with 'pytorch_model.bin'"),
        ("2_Dense/pytorch_model.bin", "ignore_paths with '2_Dense/pytorch_model.bin'"),
        ("model.gguf", "ignore_paths with 'model.gguf'"),
        ("model.onnx_data", "ignore_paths with 'model.onnx_data'"),
        ("unet/config.json", "ignore_paths with 'unet/config.json'"),
        (".", "ignore_paths with the path '.'"),
        ("", "ignore_paths with the path ''"),
        ("..", "ignore_paths with the path '..'"),
        ("./a", "ignore_paths with the path './a'"),
        ("/", "ignore_paths with the path '/'"),
        ("b", "the file 'b/c', signed and in ignore_paths"),
        ("b/c", "the file 'b/c', signed and in ignore_paths"),
    ],
)
def test_a_list_of_exceptions_that_swallows_the_model_is_refused(entry: str, found: str) -> None:
    error = said(bundle_of(files_of("a", "b/c", ignore_paths=[*IGNORED, entry])))
    assert error.found.startswith(found)


TRAINING_STATE = [
    "training_args.bin",
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "rng_state_0.pth",
    "rng_state_15.pth",
]
NEARLY = [
    "my_training_args.bin",
    "training_args.pt",
    "training_args.bin/model.bin",
    "Optimizer.pt",
    "optimizer.pth",
    "optimizer_0.pt",
    "rng_state.pt",
    "rng_state_.pth",
    "rng_state_x.pth",
    "rng_state_0.pth.bin",
    "rng_state_\u0661.pth",
    "training_args.bin\n.pt",
    "scaler.safetensors",
]
"""Called nearly so: some loader may take them."""


@pytest.mark.parametrize("folder", ["", "checkpoint-500/"])
@pytest.mark.parametrize("name", TRAINING_STATE)
def test_the_state_of_a_training_may_be_left_out(name: str, folder: str) -> None:
    signed = verified(bundle_of(files_of("a", ignore_paths=[*IGNORED, folder + name])))
    assert find_unsigned(signed, ["a", folder + name]) == ()
    assert find_unsigned(signed, ["a", "b/" + name]) == ("b/" + name,)


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_called_nearly_so_may_not(name: str) -> None:
    assert "ignore_paths" in said(bundle_of(files_of("a", ignore_paths=[*IGNORED, name]))).found
    signed = verified(bundle_of(files_of("a", ignore_paths=[*IGNORED, "drafts"])))
    assert find_unsigned(signed, ["a", f"drafts/{name}"]) == (f"drafts/{name}",)


@pytest.mark.parametrize("name", TRAINING_STATE)
def test_unless_it_is_left_out_it_is_signed_or_refused(signed: SignedDigests, name: str) -> None:
    assert find_unsigned(signed, [*COMPLETE, name, f"drafts/{name}"]) == (name,)


@pytest.mark.parametrize("index", ["pytorch_model.bin.index.json", "a/b.index.json", "model.safetensors.index.x.json"])
def test_which_of_it_an_index_may_name(index: str) -> None:
    assert is_any_index(index)
    for name in ("training_args.bin", "sub/training_args.bin", "./training_args.bin", "/x/training_args.bin"):
        assert may_name(
            json.dumps({"weight_map": {"a": "b.bin", "c": name}}).encode(), "checkpoint-500/training_args.bin"
        )
    escaped = rb'{"weight_map": {"c": "training\u005fargs.bin"}}'
    assert may_name(escaped, "training_args.bin")
    assert not may_name(b'{"weight_map": {"training_args.bin.weight": "b.bin"}}', "training_args.bin")
    assert not may_name(b'{"weight_map": {"optimizer": "b.bin"}}', "optimizer.bin")


@pytest.mark.parametrize("path", ["config.json", "index.json", "a.index.bin", "tokenizer.index/config.json"])
def test_what_is_no_index(path: str) -> None:
    assert not is_any_index(path)


def test_without_a_list_of_exceptions_there_are_none() -> None:
    statement = files_of("a")
    del statement["predicate"]["serialization"]["ignore_paths"]
    assert verified(bundle_of(statement)).ignored == ()


@pytest.fixture(name="signed")
def some_signed() -> SignedDigests:
    """A model of three files, of which the signer left out a folder, a note and fastload's own files."""
    ignored = [*IGNORED, "drafts", "note.md", ".fastload"]
    return verified(bundle_of(files_of("config.json", "model.safetensors", "tokenizer.json", ignore_paths=ignored)))


COMPLETE = ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_snapshot_of_just_what_was_signed_is_covered(signed: SignedDigests) -> None:
    assert find_unsigned(signed, COMPLETE) == ()
    besides = [
        ".git/config",
        ".gitattributes",
        ".gitignore",
        ".github/x.yml",
        "model.sig",
        ".fastload/manifests/0.json",
    ]
    assert find_unsigned(signed, [*COMPLETE, *besides, "note.md", "drafts/a/b.txt"]) == ()


@pytest.mark.parametrize(
    "path",
    [
        "extra.safetensors",
        "model.safetensors.index.json",
        "modeling_evil.py",
        "unet/config.json",
        "sub/.gitattributes",
        "sub/model.sig",
        "note.md2",
        "draft",
        ".gitmodules",
        "drafts/model.safetensors",
        "drafts/a/config.json",
        "drafts/x.safetensors.index.json",
        "drafts/x.safetensors.index.fp16.json",
        "model.safetensors.index.a.b.json",
        ".git/model.safetensors",
        "drafts/pytorch_model.bin",
        "drafts/a/model.gguf",
        "drafts/rng.pt",
        ".git/model.bin",
    ],
)
def test_a_file_that_nobody_signed_is_named(signed: SignedDigests, path: str) -> None:
    assert find_unsigned(signed, [*COMPLETE, path]) == (path,)
