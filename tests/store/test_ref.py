"""What a user may type, and what it is taken for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastload
from fastload._store.ref import Candidate, Name, parse_candidate, parse_ref
from fastload.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ALIASES = {"llama": ("meta/Llama", "Meta-Llama"), "pinned": (f"a/b@{COMMIT}",)}


def test_a_path_is_what_looks_like_one_and_any_pathlike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("/models/x", "./x", "../x", "~/x", "x.safetensors", "model.safetensors.index.json", "."):
        assert isinstance(parse_ref(text, None, {}), str)
    assert parse_ref(Path("org/name"), None, {}) == str(tmp_path / "org/name")


def test_a_name_is_a_candidate_of_its_own() -> None:
    assert parse_ref("org/name", None, {}) == Name("org/name", (Candidate("org/name", None),), is_alias=False)
    name = parse_ref("org/name@v1.0", None, {})
    assert isinstance(name, Name)
    assert name.candidates == (Candidate("org/name", "v1.0"),)


def test_only_a_bare_name_without_a_revision_may_be_the_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("llama", "org/name", "other@v1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    for text, revision in (("file", None), ("org/name", None), ("llama@main", None), ("llama", "main")):
        assert isinstance(parse_ref(text, revision, {}), Name)
    for text, name in (("llama", "'llama@main'"), ("other@v1", "'other' with the revision 'v1'")):
        with pytest.raises(UsageError, match=rf"Write '\./{text}' for the folder, or {name} for the name"):
            parse_ref(text, None, {"llama": ("org/name",)})


def test_an_alias_is_all_its_candidates_in_order() -> None:
    name = parse_ref("llama", None, ALIASES)
    assert isinstance(name, Name)
    assert name.is_alias
    assert name.candidates == (Candidate("meta/Llama", None), Candidate("Meta-Llama", None))
    assert [candidate.is_bare for candidate in name.candidates] == [False, True]


def test_a_revision_of_an_alias_is_that_of_its_candidates() -> None:
    name = parse_ref("llama@v2", None, ALIASES)
    assert isinstance(name, Name)
    assert {candidate.revision for candidate in name.candidates} == {"v2"}
    with pytest.raises(UsageError, match="once"):
        parse_ref("pinned@v2", None, ALIASES)


def test_only_a_commit_pins() -> None:
    assert parse_candidate(f"a/b@{COMMIT}").is_pinned
    assert not any(
        parse_candidate(text).is_pinned for text in ("a/b", "a/b@main", f"a/b@{COMMIT[:39]}", "a/b@refs/pr/1")
    )


def test_a_revision_is_said_once() -> None:
    assert parse_candidate("a/b@v1", "v1") == Candidate("a/b", "v1")
    with pytest.raises(UsageError, match="once"):
        parse_candidate("a/b@v1", "v2")
    with pytest.raises(UsageError, match="path"):
        parse_ref("/models/x", "v1", {})


@pytest.mark.parametrize(
    "text",
    ["", "a/b/c", "a/", "a//b", "a/..", "a--b/c", ".git", "a b", "a/b@", "a@b@c/..", "-a/b", "x" * 97, "a\0b"],
)
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_ref(text, None, {})


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_revision_that_is_left_out_after_its_sign_is_shown_as_nothing(revision: str | None) -> None:
    with pytest.raises(UsageError, match=r"^'' is no revision"):
        parse_ref("a/b@", revision, {})


@pytest.mark.parametrize("revision", ["..", "a/../b", "/a", "a/", "a//b", "a b", "x.lock", "-x\n", ".x", "a\0"])
def test_a_revision_that_could_lead_elsewhere_is_refused(revision: str) -> None:
    with pytest.raises(UsageError, match="no revision"):
        parse_candidate("a/b", revision)


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_a_name_or_refused(text: str) -> None:
    try:
        parsed = parse_ref(text, None, ALIASES)
    except UsageError:
        return
    assert isinstance(parsed, str) or all(".." not in str(candidate) for candidate in parsed.candidates)


@pytest.mark.parametrize("model", [None, 5, b"model", ""])
@pytest.mark.parametrize("verb", ["load", "stream", "inspect", "resolve", "verify", "warm", "pin", "unpin", "remove"])
def test_what_is_no_model_is_a_usage_error_everywhere(verb: str, model: object) -> None:
    with pytest.raises(fastload.UsageError, match="is no model"):
        getattr(fastload, verb)(model)


@pytest.mark.parametrize("verb", ["resolve", "warm", "verify", "pin", "unpin", "remove", "load", "inspect"])
@pytest.mark.parametrize(("keyword", "value"), [("options", 3), ("options", {}), ("revision", 3), ("revision", b"v1")])
def test_an_argument_of_another_type_is_a_usage_error_everywhere(verb: str, keyword: str, value: object) -> None:
    for model in ("org/name", Path("/nowhere")):
        with pytest.raises(UsageError, match=f"{keyword}= got {type(value).__name__}"):
            getattr(fastload, verb)(model, **{keyword: value})


@pytest.mark.parametrize("options", [3, {}])
def test_what_are_no_options_are_refused_where_no_model_is_named(options: Any) -> None:
    for act in (fastload.snapshots, fastload.prune):
        with pytest.raises(UsageError, match="options= got"):
            act(options=options)
