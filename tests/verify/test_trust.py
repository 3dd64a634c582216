"""The rules of trust, each as a row: what was looked up, and what is believed."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.manifest import Manifest, ManifestFile
from fastload._verify.trust import (
    MADE_HERE,
    RECORDED,
    Believed,
    Contradicted,
    KeptManifest,
    Known,
    PassedOver,
    Times,
    Verdict,
    believe_beside,
    believe_kept,
    find_contradicting,
    find_cure,
    find_distrust,
    judge_kept,
    judge_times,
)

A, B = "a" * 64, "b" * 64
GIT_A, GIT_B = "a" * 40, "b" * 40
WEIGHTS, INDEX, CONFIG, README = "m.safetensors", "m.safetensors.index.json", "config.json", "README.md"
THEN = 10**18
ROOT, US, STRANGER = 0, 1000, 1001


@dataclass(frozen=True)
class Seen:
    """A file, as a tier lists it."""

    path: str = WEIGHTS
    size: int = 1
    mtime_ns: int | None = THEN
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def has_digest(self) -> bool:
        return bool(self.sha256 or self.git_sha1)


def listed(path: str = WEIGHTS, git_sha1: str | None = None) -> ManifestFile:
    return ManifestFile(path, 1, A, git_sha1, ("0" * 64,))


def manifest_of(*paths: str, source: str = RECORDED) -> Manifest:
    return Manifest(repo="name", commit="c" * 40, source=source, files=tuple(map(listed, sorted(paths))))


def kept_of(*paths: str, noted: dict[str, Any] | None = None) -> KeptManifest:
    every = {path: [1, THEN] for path in paths}
    return KeptManifest("/manifests/1.json", manifest_of(*paths), every if noted is None else noted)


@pytest.mark.parametrize(
    ("mode", "owner", "reason"),
    [
        (stat.S_IFREG | 0o644, US, None),
        (stat.S_IFREG | 0o600, ROOT, None),
        (stat.S_IFDIR | 0o755, US, None),
        (stat.S_IFLNK | 0o777, US, "is a link"),
        (stat.S_IFREG | 0o644, STRANGER, "belongs to uid 1001, who is neither this user nor root"),
        (stat.S_IFREG | 0o664, US, "may be written by others (uid 1000 owns it)"),
        (stat.S_IFREG | 0o646, ROOT, "may be written by others (uid 0 owns it)"),
        (stat.S_IFDIR | 0o2775, US, "may be written by others (uid 1000 owns it)"),
    ],
)
def test_whose_word_counts(mode: int, owner: int, reason: str | None) -> None:
    assert find_distrust((mode, owner), US) == reason


def test_a_strangers_word_counts_for_nobody_else_not_even_for_root() -> None:
    assert find_distrust((stat.S_IFREG | 0o644, US), ROOT) is not None


@pytest.mark.parametrize(
    ("mode", "owner", "user", "cure"),
    [
        (stat.S_IFDIR | 0o755, US, US, ""),
        (stat.S_IFDIR | 0o755, ROOT, US, ""),
        (stat.S_IFLNK | 0o777, US, US, "rm '/a b'"),
        (stat.S_IFDIR | 0o775, US, US, "chmod go-w '/a b'"),
        (stat.S_IFDIR | 0o777, ROOT, ROOT, "chmod go-w '/a b'"),
        (stat.S_IFDIR | 0o777, ROOT, US, "as root: chmod go-w '/a b'"),
        (stat.S_IFDIR | 0o755, US, ROOT, "chown root '/a b'"),
        (stat.S_IFDIR | 0o775, US, ROOT, "chown root '/a b' && chmod go-w '/a b'"),
        (stat.S_IFDIR | 0o775, STRANGER, US, "as uid 1001: rm -r '/a b'"),
    ],
)
def test_what_makes_a_folder_one_that_this_user_may_vouch_for(mode: int, owner: int, user: int, cure: str) -> None:
    assert find_cure([("/a b", (mode, owner))], user) == cure
    assert (find_distrust((mode, owner), user) is None) is (cure == "")
    check_pasted(cure)


OPEN, LINK = stat.S_IFDIR | 0o777, stat.S_IFLNK | 0o777


@pytest.mark.parametrize(
    ("seen", "cure"),
    [
        ([(OPEN, US), (OPEN, US)], "chmod go-w /0 && chmod go-w /1"),
        ([(OPEN, US), (OPEN, ROOT)], "chmod go-w /0; then as root: chmod go-w /1"),
        ([(OPEN, ROOT), (OPEN, ROOT)], "as root: chmod go-w /0 && chmod go-w /1"),
        ([(OPEN, STRANGER), (OPEN, ROOT)], "as uid 1001: rm -r /0; then as root: chmod go-w /1"),
        ([(OPEN, STRANGER), (OPEN, 1002)], "as uid 1001: rm -r /0; then as uid 1002: rm -r /1"),
        ([(OPEN, STRANGER), (stat.S_IFDIR | 0o755, US), (LINK, US)], "as uid 1001: rm -r /0; then rm /2"),
        ([], ""),
    ],
)
def test_of_several_folders_each_command_is_one_that_somebody_can_paste(seen: list[tuple[int, int]], cure: str) -> None:
    assert find_cure([(f"/{number}", status) for number, status in enumerate(seen)], US) == cure
    check_pasted(cure)


def check_pasted(cure: str) -> None:
    """Check that all that stands between what is told to people is what a shell understands, and nothing else."""
    for step in cure.split("; then "):
        command = re.sub("^as (?:root|uid [0-9]+): ", "", step)
        words = [shlex.split(part) for part in command.split(" && ")]
        assert not cure or all(part[0] in {"rm", "chmod", "chown"} for part in words)
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0


@pytest.mark.parametrize(
    ("file", "entry", "contradicting"),
    [
        (Seen("other.safetensors", sha256=B), listed(), ()),
        (Seen(), listed(), ()),
        (Seen(sha256=A), listed(), ()),
        (Seen(sha256=B), listed(), (WEIGHTS,)),
        (Seen(git_sha1=GIT_B), listed(git_sha1=GIT_A), (WEIGHTS,)),
        (Seen(git_sha1=GIT_A), listed(), ()),  # of another algorithm: they do not contradict each other
        (Seen(sha256=A, mtime_ns=THEN + 1, size=2), listed(), ()),  # whoever reads it finds the damage
    ],
)
def test_beside_the_name_of_a_blob_and_a_later_etag_decide(
    file: Seen, entry: ManifestFile, contradicting: tuple[str, ...]
) -> None:
    assert find_contradicting([file], replace(manifest_of(), files=(entry,))) == contradicting


@pytest.mark.parametrize(
    ("times", "are_told", "verdict"),
    [
        (Times(WEIGHTS, THEN, THEN), True, Verdict.PROVES),
        (Times(WEIGHTS, THEN + 1, THEN), True, Verdict.OUTDATED),
        (Times(WEIGHTS, THEN - 1, THEN), True, Verdict.OUTDATED),  # restored from somewhere: another one, too
        (Times(README, THEN + 1, THEN), True, Verdict.OUTDATED),
        (Times(WEIGHTS, None, THEN), True, Verdict.PROVES),  # whoever reads it will say why he cannot
        (Times(WEIGHTS, THEN, None), True, Verdict.PROVES),
        (Times(README, THEN, None), False, Verdict.UNTOLD),
        (Times("tokenizer.json", THEN, None), False, Verdict.UNTOLD),
        (Times(WEIGHTS, THEN, None), False, Verdict.PROVES),
        (Times(INDEX, THEN, None), False, Verdict.PROVES),
        (Times(CONFIG, THEN, None), False, Verdict.PROVES),
        (Times("m.gguf", THEN, None, is_weight=True), False, Verdict.PROVES),
    ],
)
def test_times_tell_what_was_written_since(times: Times, are_told: bool, verdict: Verdict) -> None:  # noqa: FBT001
    assert judge_times(times, are_told=are_told) is verdict


@pytest.mark.parametrize(
    ("file", "entry", "noted", "verdict"),
    [
        (Seen(), None, [1, THEN], Verdict.UNNAMED),
        (Seen(), listed(), [1, THEN], Verdict.PROVES),
        (Seen(mtime_ns=THEN + 1), listed(), [1, THEN], Verdict.OUTDATED),
        (Seen(size=2), listed(), [1, THEN], Verdict.OUTDATED),
        (Seen(), listed(), None, Verdict.OUTDATED),
        (Seen(), listed(), "odd", Verdict.OUTDATED),
        (Seen(sha256=A, mtime_ns=THEN + 1), listed(), None, Verdict.PROVES),  # a digest is worth more than times
        (Seen(sha256=B), listed(), [1, THEN], Verdict.CONTRADICTED),
        (Seen(sha256=A, size=2), listed(), [2, THEN], Verdict.CONTRADICTED),
        (Seen(git_sha1=GIT_A), listed(), [1, THEN], Verdict.CONTRADICTED),  # what it leaves out cannot speak for it
        (Seen(git_sha1=GIT_A), listed(git_sha1=GIT_A), None, Verdict.PROVES),
    ],
)
def test_apart_all_that_the_tier_knows_must_be_there(
    file: Seen, entry: ManifestFile | None, noted: Any, verdict: Verdict
) -> None:
    assert judge_kept(file, entry, noted) is verdict


@pytest.mark.parametrize("source", ["hub", "shared:/mnt", MADE_HERE, "anything"])
def test_what_was_no_record_of_an_owner_does_not_become_outdated(source: str) -> None:
    word = believe_beside(manifest_of(WEIGHTS, source=source), [Times(WEIGHTS, THEN + 1, THEN)], are_told=True)
    assert (word.unknown, word.names_lost, word.is_closed) == (frozenset(), True, True)
    assert not word.may_be_meant


@pytest.mark.parametrize(
    ("source", "known", "kind"),
    [
        ("hub", [], EvidenceKind.RECORDED),
        ("hub", [Seen()], EvidenceKind.RECORDED),
        ("hub", [Seen(sha256=A)], EvidenceKind.MANIFEST),
        ("hub", [Seen(sha256=A), Seen(INDEX)], EvidenceKind.RECORDED),
        ("hub", [Seen(sha256=A), Seen(INDEX, sha256=A)], EvidenceKind.MANIFEST),
        ("hub", [Seen(git_sha1=GIT_A)], EvidenceKind.RECORDED),  # of which the manifest says nothing
        ("hub", [Seen("new.safetensors", sha256=B)], EvidenceKind.RECORDED),
        (RECORDED, [Seen(sha256=A)], EvidenceKind.RECORDED),
    ],
)
def test_in_a_plain_folder_the_source_that_a_manifest_names_is_its_writers_word(
    source: str, known: list[Seen], kind: EvidenceKind
) -> None:
    """What it is worth, notes of a download say, which name the same digests."""
    assert believe_beside(manifest_of(WEIGHTS, INDEX, source=source), (), known, are_told=True).kind is kind


@pytest.mark.parametrize(
    ("written", "are_told", "unknown", "is_closed"),
    [
        ((), True, set(), True),
        ((CONFIG, README), True, {CONFIG, README}, True),
        ((WEIGHTS,), True, {WEIGHTS}, False),
        ((INDEX,), True, {INDEX}, False),
        ((WEIGHTS, README), False, {README}, True),
    ],
)
def test_a_record_says_which_files_there_should_be_until_one_that_decides_was_written(
    written: tuple[str, ...],
    are_told: bool,  # noqa: FBT001
    unknown: set[str],
    is_closed: bool,  # noqa: FBT001
) -> None:
    paths = (WEIGHTS, INDEX, CONFIG, README)
    times = [Times(path, THEN + (path in written), THEN) for path in paths]
    word = believe_beside(manifest_of(*paths), times, are_told=are_told)
    assert (word.kind, word.unknown, word.may_be_meant) == (EvidenceKind.RECORDED, frozenset(unknown), True)
    assert (word.is_closed, word.names_lost) == (is_closed, is_closed)
    assert set(paths) - word.proven.keys() == unknown
    assert [file.path for file in word.find_lost(())] == ([CONFIG, WEIGHTS, INDEX] if is_closed else [])  # no README


@pytest.mark.parametrize(
    ("files", "facts", "kind", "outdated", "names_lost"),
    [
        ([Seen()], {}, EvidenceKind.RECORDED, (), True),
        ([Seen(sha256=A)], {}, EvidenceKind.MANIFEST, (), True),
        ([Seen(sha256=A)], {"is_recorded": True}, EvidenceKind.RECORDED, (), True),
        ([Seen(sha256=A)], {"is_whole": True}, EvidenceKind.MANIFEST, (), False),
        ([Seen()], {"is_whole": True}, EvidenceKind.RECORDED, (), False),
        ([Seen(sha256=A), Seen(CONFIG)], {}, EvidenceKind.MANIFEST, (), True),
        ([Seen(sha256=A), Seen("new.safetensors")], {}, EvidenceKind.MANIFEST, (), False),
        ([Seen(mtime_ns=THEN + 1)], {}, EvidenceKind.RECORDED, (WEIGHTS,), False),
        ([Seen(), Seen(CONFIG, mtime_ns=THEN + 1)], {}, EvidenceKind.RECORDED, (CONFIG,), True),
        ([Seen(), Seen("new.safetensors")], {}, EvidenceKind.RECORDED, (), False),
        ([Seen(), Seen("new.safetensors", sha256=B)], {}, EvidenceKind.RECORDED, (), True),
        ([Seen("new.safetensors", sha256=B), Seen(CONFIG, sha256=A)], {}, EvidenceKind.MANIFEST, (), True),
        ([Seen("new.safetensors", sha256=B)], {}, EvidenceKind.RECORDED, (), True),
    ],
)
def test_a_manifest_apart_proves_as_much_as_was_known_of_the_weights(
    files: list[Seen],
    facts: dict[str, bool],
    kind: EvidenceKind,
    outdated: tuple[str, ...],
    names_lost: bool,  # noqa: FBT001 - as above
) -> None:
    deciding = [file for file in files if file.path.endswith(".safetensors")]
    word = believe_kept(kept_of(WEIGHTS, CONFIG), Known(files, deciding, **facts))
    assert isinstance(word, Believed)
    assert (word.kind, word.outdated, word.names_lost, word.is_closed) == (kind, outdated, names_lost, False)
    assert word.may_be_meant is ("is_whole" not in facts and (kind is EvidenceKind.RECORDED or names_lost))
    assert word.leaves_unknown is (not names_lost and "is_whole" not in facts)


def test_nothing_is_believed_of_one_that_is_of_other_files() -> None:
    files = [Seen(), Seen(CONFIG, sha256=B)]
    assert believe_kept(kept_of(WEIGHTS, CONFIG), Known(files, files[:1])) == Contradicted(CONFIG, "/manifests/1.json")


def test_what_is_kept_of_other_states_says_nothing_of_its_neighbours() -> None:
    files = [Seen(), Seen(CONFIG)]
    word = believe_kept(kept_of(WEIGHTS, CONFIG, noted={WEIGHTS: [1, THEN]}), Known(files, files[:1]))
    assert isinstance(word, Believed)
    assert word.proven == {WEIGHTS: listed()}
    assert not replace(word, names_lost=False).find_lost(())


def test_what_is_passed_over_says_why() -> None:
    assert str(PassedOver("/manifests/1.json", "is a link")) == "/manifests/1.json is a link"
    assert str(PassedOver("/m", "is a link", "rm /m")) == "/m is a link; first: rm /m"
