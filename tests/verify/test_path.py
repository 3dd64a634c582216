"""Paths of strangers: none leads out of the snapshot, into fastload's own folder, or to two things at once."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._verify.path import PathError, check_path_in_snapshot, check_paths_fit, is_index, is_loaded


@pytest.mark.parametrize(
    "path",
    [
        "config.json",
        "a/b/c/model.safetensors",
        ".gitattributes",
        "..a",
        "a..",
        "...",
        "~",
        "-rf",
        "C:",
        "a b",
        "%2e%2e",
        "a/.fastload/x",
        ".fastload2",
        "\u6a21\u578b",
        "\U0001f600",
        "\u00a0",
        "x" * 255,
        "/".join("x" * 64),
    ],
)
def test_plain_paths_are_taken(path: str) -> None:
    check_path_in_snapshot(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        ".",
        "..",
        "../x",
        "a/..",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "..\\x",
        "a\0",
        "a\nb",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\ud800",
        ".fastload",
        ".fastload/manifests/x.json",
        "x" * 256,
        "\u20ac" * 86,
        "/".join(["x" * 200] * 6),
        "/".join("x" * 65),
        None,
        7,
        b"a",
        ["a"],
    ],
)
def test_all_others_are_refused(path: Any) -> None:
    with pytest.raises(PathError) as caught:
        check_path_in_snapshot(path)
    assert len(str(caught.value)) < 500 and str(caught.value).isprintable()


@given(st.text("./\\a\0", max_size=12))
def test_what_is_taken_stays_where_it_is_joined(path: str) -> None:
    try:
        check_path_in_snapshot(path)
    except PathError:
        return
    joined = posixpath.join("/root/snapshot", path)
    assert posixpath.normpath(joined) == joined
    assert joined.startswith("/root/snapshot/")


@pytest.mark.parametrize("paths", [[], ["a"], ["a", "b"], ["a-b", "a/b", "a/c", "ab"], ["\uffff", "\U0001f600"]])
def test_sorted_paths_fit(paths: list[str]) -> None:
    check_paths_fit(paths)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["b", "a"], "'a' after 'b'"),
        (["a", "a"], "'a' after 'a'"),
        (["a", "a-", "a/b"], "'a/b', and 'a' as a file"),
        (["a/b", "a/b/c/d"], "'a/b/c/d', and 'a/b' as a file"),
        (["\U0001f600", "\uffff"], "after"),
    ],
)
def test_paths_that_collide_do_not(paths: list[str], said: str) -> None:
    with pytest.raises(PathError, match=said):
        check_paths_fit(paths)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model.safetensors.index.json", True),
        ("unet/x.safetensors.index.fp16.json", True),
        (".safetensors.index.json", True),
        ("model.safetensors.index.a.b.json", True),
        ("model.safetensors.index..json", True),
        ("model.safetensors.index.fp16.json/readme", False),
        ("a.safetensors.index.b/x.json", False),
        ("pytorch_model.bin.index.json", False),
        ("model.safetensors.index.json.bak", False),
        ("model.safetensors", False),
    ],
)
def test_an_index_of_any_variant_is_told_by_its_name(path: str, expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert is_index(path) is expected
    assert is_loaded(path) is (expected or path.endswith(".safetensors"))
