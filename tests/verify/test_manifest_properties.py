"""What holds for all manifests: they come back as they were, and nothing near them is taken for one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastload._verify.manifest import Manifest, dump_manifest, parse_manifest
from fastload.errors import FastloadError
from manifests import MANIFESTS, PATH, document_of, file_document

if TYPE_CHECKING:
    import random

PATIENT = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["ab" * 32, "0" * 40, 1, 7]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|[\[\]{},:]', re.DOTALL)
ODD_TOKENS = rb'0 -1 1 7 7.0 1e3 9007199254740992 true null "" "a" ".." "/a" "a/b" "\u0000" [] {} [[]] , : } ]'.split()


def outcome(raw: bytes) -> Manifest | None:
    """The manifest if it is one; anything but an error of ours fails the test."""
    try:
        found = parse_manifest(raw, path=PATH)
    except FastloadError:
        return None
    assert dump_manifest(found) == raw
    return found


@PATIENT
@given(MANIFESTS)
def test_manifests_come_back_as_they_were(manifest: Manifest) -> None:
    raw = dump_manifest(manifest)
    assert parse_manifest(raw, path=PATH) == manifest
    assert rfc8785.dumps(json.loads(raw)) == raw


@PATIENT
@given(MANIFESTS, st.data())
def test_one_wrong_byte_never_gives_the_same_manifest(manifest: Manifest, data: st.DataObject) -> None:
    raw = bytearray(dump_manifest(manifest))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    assert outcome(bytes(raw)) != manifest


@PATIENT
@given(MANIFESTS, st.integers(0))
def test_a_manifest_cut_short_is_none(manifest: Manifest, length: int) -> None:
    raw = dump_manifest(manifest)
    assert outcome(raw[: length % len(raw)]) is None


@PATIENT
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_an_error_of_ours(raw: bytes) -> None:
    assert outcome(raw) is None


@PATIENT
@given(st.sampled_from(sorted(document_of())), JSON)
def test_any_value_of_any_key_is_refused_or_read(key: str, value: Any) -> None:
    outcome(json.dumps(document_of(**{key: value}), separators=(",", ":"), sort_keys=True).encode())


@PATIENT
@given(st.sampled_from([*file_document(), "git_sha1"]), JSON)
def test_any_value_of_any_key_of_a_file_is_refused_or_read(key: str, value: Any) -> None:
    document = document_of(files=[file_document(**{key: value})])
    outcome(json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode("utf-8", "replace"))


@PATIENT
@given(MANIFESTS, st.randoms(use_true_random=False))
def test_mutants_are_refused_or_are_manifests_themselves(manifest: Manifest, rng: random.Random) -> None:
    tokens = TOKEN.findall(dump_manifest(manifest))
    for _ in range(20):
        mutant = list(tokens)
        for _ in range(rng.randint(1, 2)):
            place = rng.randrange(len(mutant))
            change = rng.randrange(4)
            if change == 0:
                mutant[place] = rng.choice(ODD_TOKENS)
            elif change == 1:
                del mutant[place : place + rng.randint(1, 4)]
                mutant = mutant or [b"{"]
            elif change == 2:
                mutant[place:place] = mutant[place : place + rng.randint(1, 8)]
            else:
                other = rng.randrange(len(mutant))
                mutant[place], mutant[other] = mutant[other], mutant[place]
        outcome(b"".join(mutant))
