"""What holds for all bundles: only errors of ours leave, and nothing but what was signed comes out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastload._verify.path import check_path_in_snapshot
from fastload._verify.signature import SignedDigests, verify_bundle
from fastload._verify.statement import ShardedFile, WholeFile
from fastload.errors import FastloadError
from signing import PATH, bundle_document, bundle_of, files_of, key_of, pem_of, shards_of

if TYPE_CHECKING:
    import random

pytest.importorskip("cryptography", reason="signatures are verified by cryptography: pip install 'cryptography>=42'")

GOLDEN = Path(__file__).parent / "golden" / "oms"
REAL = sorted(GOLDEN.glob("*-p*.sig"))
PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[\[\]{},:]', re.DOTALL)
ODD_TOKENS = rb"""0 -1 1 100.0 1e3 true null "" "a" ".." "/a" "a/b" "a:0:100" "w:0:100" "w:100:200" "\u0000" "md5"
"files" "shards" "sha256" "sha256-sharded-100" "blake3" [] {} [[]] , : } ]""".split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["ab" * 32, "files", 100]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def outcome(raw: bytes, key_pem: bytes) -> SignedDigests | None:
    """What was signed if the signature holds; anything but an error of ours fails the test."""
    try:
        return verify_bundle(raw, key_pem, path=PATH)
    except FastloadError:
        return None


def check_sound(signed: SignedDigests) -> None:
    """What a load relies on."""
    assert signed.files
    digits = {"sha256": 64, "blake2b": 128, "blake3": 64}[signed.algorithm]
    for path, file in signed.files.items():
        check_path_in_snapshot(path)
        assert file.algorithm == signed.algorithm
        if isinstance(file, WholeFile):
            assert re.fullmatch("[0-9a-f]*", file.digest) and len(file.digest) == digits
            continue
        assert isinstance(file, ShardedFile)
        assert [shard.start for shard in file.shards] == [0, *(shard.end for shard in file.shards[:-1])]
        assert all(shard.start < shard.end and len(shard.digest) == digits for shard in file.shards)


def mutant_of(tokens: list[bytes], rng: random.Random) -> bytes:
    """The tokens with one or two of them changed, gone, twice or elsewhere."""
    mutant = list(tokens)
    for _ in range(rng.randint(1, 2)):
        place = rng.randrange(len(mutant))
        change = rng.randrange(4)
        if change == 0:
            mutant[place] = rng.choice([*ODD_TOKENS, *tokens])
        elif change == 1:
            del mutant[place : place + rng.randint(1, 4)]
            mutant = mutant or [b"{"]
        elif change == 2:
            mutant[place:place] = mutant[place : place + rng.randint(1, 8)]
        else:
            other = rng.randrange(len(mutant))
            mutant[place], mutant[other] = mutant[other], mutant[place]
    return b"".join(mutant)


@PATIENT
@given(st.sampled_from(REAL), st.data())
def test_one_wrong_byte_in_a_real_bundle_changes_nothing_that_was_signed(real: Path, data: st.DataObject) -> None:
    """It may lie in the hint, which nobody trusts."""
    key_pem = (GOLDEN / f"{real.stem.rpartition('-')[2]}.pub.pem").read_bytes()
    raw = real.read_bytes()
    signed = outcome(raw, key_pem)
    assert signed is not None
    for _ in range(20):
        wrong = bytearray(raw)
        wrong[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        assert outcome(bytes(wrong), key_pem) in (None, signed)


@PATIENT
@given(st.sampled_from(REAL), st.randoms(use_true_random=False))
def test_mutants_of_a_real_bundle_change_nothing_that_was_signed(real: Path, rng: random.Random) -> None:
    key_pem = (GOLDEN / f"{real.stem.rpartition('-')[2]}.pub.pem").read_bytes()
    raw = real.read_bytes()
    signed, tokens = outcome(raw, key_pem), TOKEN.findall(raw)
    for _ in range(20):
        assert outcome(mutant_of(tokens, rng), key_pem) in (None, signed)


@PATIENT
@given(
    st.sampled_from([files_of("a", "b/c", "w.safetensors"), shards_of("a:0:7", "w:0:100", "w:100:150")]),
    st.randoms(use_true_random=False),
)
def test_mutants_of_a_statement_that_are_signed_are_refused_or_sound(
    statement: dict[str, Any], rng: random.Random
) -> None:
    tokens = TOKEN.findall(json.dumps(statement).encode())
    for _ in range(10):
        signed = outcome(bundle_of(mutant_of(tokens, rng)), pem_of(key_of()))
        if signed is not None:
            check_sound(signed)


@PATIENT
@given(st.data(), JSON)
def test_any_value_anywhere_in_a_signed_statement_is_refused_or_sound(data: st.DataObject, value: Any) -> None:
    statement = data.draw(st.sampled_from([files_of("a", "b"), shards_of("w:0:100", "w:100:150")]))
    changed = json.loads(json.dumps(statement))
    owner, entry = changed, data.draw(st.sampled_from(sorted(changed)))
    while isinstance(owner[entry], (dict, list)) and owner[entry] and data.draw(st.integers(0, 3)):
        owner = owner[entry]
        entry = data.draw(st.sampled_from(sorted(owner) if isinstance(owner, dict) else range(len(owner))))
    owner[entry] = value
    signed = outcome(bundle_of(json.dumps(changed).encode()), pem_of(key_of()))
    if signed is not None:
        check_sound(signed)


@PATIENT
@given(st.sampled_from(["mediaType", "verificationMaterial", "dsseEnvelope"]), JSON)
def test_any_value_of_any_key_of_a_bundle_is_refused(key: str, value: Any) -> None:
    document = {**bundle_document(json.dumps(files_of("a")).encode()), key: value}
    assert outcome(json.dumps(document).encode(), pem_of(key_of())) is None


@PATIENT
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_an_error_of_ours(raw: bytes) -> None:
    key_pem = pem_of(key_of())
    assert outcome(raw, key_pem) is outcome(bundle_of(raw), key_pem) is None
    bundle = bundle_of(files_of("a"))
    wrapped = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(raw) + b"\n-----END PUBLIC KEY-----\n"
    assert outcome(bundle, raw) is outcome(bundle, wrapped) is None


@PATIENT
@given(st.data())
def test_one_wrong_byte_in_a_key_never_accepts(data: st.DataObject) -> None:
    """Unless the other byte spells the same key, such as outside of its armour."""
    bundle, key_pem = bundle_of(files_of("a")), pem_of(key_of())
    wrong = bytearray(key_pem)
    wrong[data.draw(st.integers(0, len(wrong) - 1))] ^= data.draw(st.integers(1, 255))
    signed = outcome(bundle, bytes(wrong))
    assert signed is None or signed == outcome(bundle, key_pem)


@PATIENT
@given(st.lists(st.sampled_from([f"{top}{sub}" for top in "ab" for sub in ("", "-x", "/x", "/y", ".x")]), max_size=6))
def test_a_list_of_files_is_accepted_only_once_each_and_sorted(names: list[str]) -> None:
    """Held against both orders, computed here by other means."""
    signed = outcome(bundle_of(files_of(*names)), pem_of(key_of()))
    orders = (sorted(set(names)), sorted(set(names), key=lambda name: name.split("/")))
    fits = names in orders and bool(names) and not any(f"{name}/" in " ".join(names) for name in names)
    assert (signed is not None) == fits
    if signed is not None:
        expected = b"".join(hashlib.sha256(name.encode()).digest() for name in names)
        assert signed.root == hashlib.sha256(expected).hexdigest()
