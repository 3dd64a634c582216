"""Headers and index must agree: every tensor in one shard, and in the one that the index names."""

from __future__ import annotations

import pytest

from fastload._format.checkpoint import Checkpoint, FileIdentity, Shard, build_checkpoint, layer
from fastload._format.index import Index
from fastload.errors import FormatError
from judges import parse
from writing import pack

NOBODY = FileIdentity(0, 0, 0, 0, 0)


def shard(name: str, *tensors: str) -> Shard:
    """A shard that holds these tensors."""
    return Shard(name, f"/m/{name}", parse(pack({tensor: ("U8", [1], b"1") for tensor in tensors})), NOBODY)


def index(**shard_of: str) -> Index:
    """An index that says so."""
    return Index("/m/index.json", shard_of, {})


def names(checkpoint: Checkpoint) -> list[tuple[int, str]]:
    """``(shard number, tensor)``, in the order in which they are handed out."""
    return [(number, tensor.name) for number, tensor in checkpoint.tensors()]


def test_without_an_index_all_tensors_of_all_shards_count() -> None:
    assert names(build_checkpoint([shard("1", "b", "a"), shard("2"), shard("3", "c")], None)) == [
        (0, "b"),
        (0, "a"),
        (2, "c"),
    ]


def test_what_an_index_does_not_name_is_left_out() -> None:
    shards = [shard("1", "a", "spare"), shard("2", "b")]
    assert names(build_checkpoint(shards, index(a="1", b="2"))) == [(0, "a"), (1, "b")]


def test_a_name_in_two_shards_counts_once_where_the_index_says_which() -> None:
    shards = [shard("1", "a", "tied"), shard("2", "tied")]
    assert names(build_checkpoint(shards, index(a="1", tied="2"))) == [(0, "a"), (1, "tied")]


def test_it_is_known_who_says_which_tensors_there_are() -> None:
    shards = [shard("1", "a"), shard("2")]
    chosen = index(a="1")
    assert not build_checkpoint(shards, chosen).is_named_by_headers
    for by_headers in (None, layer(shards), layer(shards, chosen)):
        assert build_checkpoint(shards, by_headers).is_named_by_headers
    assert [each.header.is_all for each in shards] == [False, True]


def test_of_shards_in_layers_the_last_one_counts() -> None:
    shards = [shard("2", "a", "b"), shard("1", "c", "a"), shard("3")]
    assert names(build_checkpoint(shards, layer(shards))) == [(0, "b"), (1, "c"), (1, "a")]


def test_an_index_that_only_chose_the_shards_need_not_be_right_in_them() -> None:
    shards = [shard("1", "a", "a.scale"), shard("2", "b")]
    assert names(build_checkpoint(shards, layer(shards, index(a="2", b="1")))) == [(0, "a"), (0, "a.scale"), (1, "b")]


def test_but_what_it_names_must_be_in_one_of_them() -> None:
    with pytest.raises(FormatError, match="no shard") as caught:
        layer([shard("1", "a")], index(a="1", gone="1"))
    assert (caught.value.tensor, caught.value.path) == ("gone", "/m/index.json")


def test_what_is_left_out_can_be_listed() -> None:
    shards = [shard("1", "a", "spare"), shard("2", "a", "b")]
    assert list(build_checkpoint(shards, index(a="1", b="2")).find_unnamed()) == ["spare"]
    assert list(build_checkpoint(shards, layer(shards)).find_unnamed()) == []
    assert list(build_checkpoint(shards[:1], None).find_unnamed()) == []


def test_no_tensors_is_a_checkpoint_too() -> None:
    assert names(build_checkpoint([shard("1")], None)) == []
    assert names(build_checkpoint([], index())) == []


def test_a_name_in_two_shards_is_refused_without_an_index() -> None:
    with pytest.raises(FormatError) as caught:
        build_checkpoint([shard("1", "a"), shard("2", "b", "a")], None)
    assert (caught.value.path, caught.value.tensor) == ("/m/2", "a")
    assert "'1'" in caught.value.expected


def test_a_tensor_in_another_shard_than_the_index_says_is_refused_with_both() -> None:
    with pytest.raises(FormatError) as caught:
        build_checkpoint([shard("1", "a"), shard("2", "b")], index(a="2", b="2"))
    assert caught.value.tensor == "a"
    assert "'1'" in caught.value.found
    assert "'2'" in caught.value.expected


def test_a_tensor_that_no_shard_holds_is_refused() -> None:
    with pytest.raises(FormatError, match="no shard") as caught:
        build_checkpoint([shard("1", "a")], index(a="1", gone="1"))
    assert caught.value.tensor == "gone"
    assert caught.value.path == "/m/index.json"


def test_control_characters_of_shard_names_do_not_reach_the_message() -> None:
    with pytest.raises(FormatError) as caught:
        build_checkpoint([shard("\x1b[2J", "a"), shard("\n", "a")], None)
    assert str(caught.value).isprintable()
