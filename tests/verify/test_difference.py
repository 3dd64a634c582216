"""What is known of a file beside what was found of it: what differs, and what nobody can tell."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fastload._verify.difference import Difference, find_contradiction, find_difference
from fastload._verify.digest import SMALL_FILE_BYTES, ContentHash
from fastload._verify.manifest import ManifestFile
from fastload._verify.statement import WholeFile

if TYPE_CHECKING:
    from fastload._verify.statement import SignedFile

A, B = "a" * 64, "b" * 64
GIT_A, GIT_B = "a" * 40, "b" * 40


@dataclass(frozen=True)
class Known:
    """What a tier may say of a file."""

    sha256: str | None = None
    git_sha1: str | None = None
    signed: SignedFile | None = None


def listed(git_sha1: str | None) -> ManifestFile:
    return ManifestFile("f", 1, A, git_sha1, ("0" * 64,))


@pytest.mark.parametrize("known", [Known(), Known(A), Known(None, GIT_A), Known(A, GIT_A)])
def test_what_has_all_that_is_known_is_right(known: Known) -> None:
    assert find_difference(known, listed(GIT_A)) is None
    assert find_contradiction(known, listed(GIT_A)) is None


@pytest.mark.parametrize(
    ("known", "difference"),
    [
        (Known(B), Difference(f"sha256 {A}", B)),
        (Known(None, GIT_B), Difference(f"git_sha1 {GIT_A}", GIT_B)),
        (Known(A, GIT_B), Difference(f"git_sha1 {GIT_A}", GIT_B)),
        (Known(B, GIT_B), Difference(f"sha256 {A}", B)),
    ],
)
def test_the_first_digest_that_differs_is_named(known: Known, difference: Difference) -> None:
    assert find_difference(known, listed(GIT_A)) == difference
    assert find_contradiction(known, listed(GIT_A)) == difference


def test_a_digest_that_is_left_out_cannot_speak_for_a_file_and_contradicts_nothing() -> None:
    assert find_difference(Known(A, GIT_A), listed(None)) == Difference("git_sha1 None", GIT_A)
    assert find_contradiction(Known(A, GIT_A), listed(None)) is None
    assert find_difference(Known(A), Known(None, GIT_A)) == Difference("sha256 None", A)
    assert find_contradiction(Known(A), Known(None, GIT_A)) is None


def test_content_is_held_to_what_is_known_and_then_to_what_was_signed() -> None:
    content = ContentHash(1, Known(signed=WholeFile("sha256", B)))
    content.update(b"x")
    unsigned = Difference(f"sha256 {content.sha256}", B)
    assert content.find_difference(Known()) == unsigned
    assert content.find_difference(Known(content.sha256, content.git_sha1)) == unsigned
    assert content.find_difference(Known(git_sha1=GIT_A)) == Difference(f"git_sha1 {content.git_sha1}", GIT_A)
    assert ContentHash(0).find_difference(Known()) is None


def test_of_content_too_large_for_git_the_sha1_is_taken_where_one_is_known_of_it() -> None:
    known = Known(git_sha1=GIT_A)
    untaken = ContentHash(SMALL_FILE_BYTES + 1)
    assert untaken.find_difference(known) == Difference("git_sha1 None", GIT_A)
    content = ContentHash(SMALL_FILE_BYTES + 1, known)
    content.update(b"x")
    found = hashlib.sha1(b"blob %d\0x" % (SMALL_FILE_BYTES + 1), usedforsecurity=False).hexdigest()
    assert content.find_difference(known) == Difference(f"git_sha1 {found}", GIT_A)
    assert content.find_difference(Known(git_sha1=found)) is None


def test_a_difference_says_all_that_its_error_does() -> None:
    error = Difference("other bytes", "those of its manifest", 7).as_error("/m/f", "Fetch it again")
    assert str(error) == "'/m/f': at byte 7: found other bytes; expected those of its manifest. Fetch it again"
    assert not error.is_whole
    assert Difference("x", "y").as_error("/m/f", "", is_whole=True).is_whole
