"""Every kind of malformed checkpoint, on a disk and through the door that callers use: our error, with the facts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastload._fetch.find.model import Source
from fastload.errors import FormatError, ModelNotFoundError, StoreError, UsageError, quoted
from fetching import fetch
from sentences import check_sentence
from writing import INDEX_NAME, entry, one_tensor, pack, shard_bytes, write_index, write_shards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._fetch.checkpoint.fetched import Fetched

pytestmark = pytest.mark.timeout(60)

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def names(fetched: Fetched) -> list[str]:
    """The tensors of a checkpoint."""
    return [tensor.name for _, tensor in fetched.checkpoint.tensors()]


def refusal(model: Path) -> FormatError:
    """What fastload says about a malformed checkpoint."""
    with pytest.raises(FormatError) as caught:
        fetch(Source(model))
    check_sentence(caught.value)
    return caught.value


NAMES = ("a", "", "\x1b[2J\n\u202e\u2028")
"""Of a tensor: the format takes them all."""


# --- the shard -----------------------------------------------------------------------------------------------------


def malformed_shards(name: str) -> dict[str, tuple[bytes, str | None]]:
    """Files with a tensor of that name, or none; and the name of what is wrong, where it is a tensor."""
    whole, key = one_tensor(name), json.dumps(name)
    return {
        "empty": (b"", None),
        "cut in the length": (whole[:5], None),
        "cut in the header": (whole[:30], None),
        "cut in the data": (whole[:-1], name),
        "cut before the data": (whole[:-4], name),
        "a byte too many": (whole + b"\0", None),
        "a length above the cap": (shard_bytes(b"{}", length=100_000_001), None),
        "a length of 2^63": (shard_bytes(b"{}", length=1 << 63), None),
        "no JSON": (shard_bytes(b"\0" * 100), None),
        "no UTF-8": (shard_bytes(b'{"\x80":1}'), None),
        "half a surrogate pair": (shard_bytes(b'{"\\ud800":' + key.encode() + b"}"), None),
        "a pickle": (b"\x80\x02}q\x00." + bytes(100), None),
        "a zip": (b"PK\x03\x04" + bytes(100), None),
        "a GGUF": (b"GGUF\x03\0\0\0" + bytes(100), None),
        "an HTML page": (b"<!DOCTYPE html><html><body>403 Forbidden</body></html>", None),
        "a git LFS pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 4\n",
            None,
        ),
        "an array": (shard_bytes(b"[" + key.encode() + b"]"), None),
        "a hole": (shard_bytes({name: entry("U8", [1], 1, 2)}, b"12"), name),
        "an overlap": (shard_bytes({"0": entry("U8", [2], 0, 2), name: entry("U8", [2], 1, 3)}, b"123"), name),
        "a name twice": (shard_bytes(f"{{{key}:{{}},{key}:{{}}}}".encode()), name),
        "an overflow of elements": (shard_bytes({name: entry("U8", [1 << 63, 4, 0], 0, 0)}), name),
        "an overflow of bits": (shard_bytes({name: entry("U64", [1 << 61], 0, 0)}), name),
        "an entry that is a string": (shard_bytes({name: name}), name),
        "an entry that is a number": (shard_bytes({name: 1}), name),
        "an entry without a field": (shard_bytes({name: {"dtype": "U8", "shape": []}}), name),
        "a length that is true": (shard_bytes({name: {**entry("U8", [1], 0, 1), "shape": [True]}}, b"1"), name),
        "a length that is negative": (shard_bytes({name: entry("U8", [-1], 0, 1)}, b"1"), name),
        "an offset that is a string": (
            shard_bytes({name: {**entry("U8", [1], 0, 1), "data_offsets": [0, name]}}),
            name,
        ),
        "an unknown dtype": (shard_bytes({name: entry("Q4_K" + name, [1], 0, 1)}, b"1"), name),
        "a dtype that is an object": (shard_bytes({name: {**entry("U8", [1], 0, 1), "dtype": {name: 1}}}, b"1"), name),
        "the end before the begin": (shard_bytes({name: entry("U8", [1], 1, 0)}, b"1"), name),
        "another size than the shape's": (shard_bytes({name: entry("U8", [2], 0, 1)}, b"1"), name),
        "half a byte": (shard_bytes({name: entry("F4", [1], 0, 1)}, b"1"), name),
        "too many dimensions": (shard_bytes({name: entry("U8", [1] * 65, 0, 1)}, b"1"), name),
        "offsets past the end": (shard_bytes({name: entry("U8", [1 << 40], 0, 1 << 40)}, b"1"), name),
        "metadata that is no text": (shard_bytes({"__metadata__": {name: 1}}), None),
        "nesting without end": (shard_bytes(b"[" * 100_000), None),
    }


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("case", malformed_shards(""))
@pytest.mark.parametrize("how", ["named", "in a folder", "by an index"])
def test_a_malformed_shard_is_refused(tmp_path: Path, case: str, how: str, name: str) -> None:
    content, tensor = malformed_shards(name)[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    if how == "by an index":
        write_index(tmp_path, {name: path.name})
    error = refusal(path if how == "named" else tmp_path)
    assert (error.path, error.tensor) == (str(path), tensor)


@pytest.mark.parametrize("case", malformed_shards(""))
def test_a_path_that_is_no_text_is_escaped_too(tmp_path: Path, case: str) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff\x1b[2J"))
    folder.mkdir()
    (folder / "x.safetensors").write_bytes(malformed_shards("a")[case][0])
    assert refusal(folder).path == str(folder / "x.safetensors")


def test_a_malformed_shard_is_found_among_good_ones(tmp_path: Path) -> None:
    write_shards(tmp_path, {ONE: ["a"]})
    (tmp_path / TWO).write_bytes(one_tensor("b")[:-1])
    assert refusal(tmp_path).path == str(tmp_path / TWO)


def test_a_header_longer_than_the_first_read_is_read_whole(tmp_path: Path) -> None:
    write_shards(tmp_path, {"x.safetensors": [f"layer.{number:030}" for number in range(20_000)]})
    assert len(names(fetch(Source(tmp_path)))) == 20_000


def test_a_file_without_tensors_is_a_model_without_tensors(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(pack({}))
    assert names(fetch(Source(tmp_path))) == []


# --- the index -----------------------------------------------------------------------------------------------------


def naming(name: str, shard: object) -> bytes:
    """An index by which two tensors, ``fine`` and the one of that name, are in good and in this ``shard``."""
    return json.dumps({"weight_map": {"fine": "x.safetensors", name: shard, name + "1": shard}}).encode()


SHARD_NAMES = {
    "above": "../x.safetensors",
    "above, on a detour": "b/../../x.safetensors",
    "above, with a backslash": "..\\x.safetensors",
    "absolute": "/x.safetensors",
    "absolute, of another system": "C:\\x.safetensors",
    "a URL": "https://example.org/x.safetensors",
    "a URL of a file": "file:///x.safetensors",
    "a pickle": "pytorch_model.bin",
    "a terminal's command": "\x1b[2J.safetensors",
    "a NUL": "x\0.safetensors",
    "empty": "",
    "too long": "n" * 2000 + ".safetensors",
    "a number": 1,
    "null": None,
    "an array": ["x.safetensors"],
    "missing": "gone.safetensors",
    "missing, in a folder that is missing": "gone/x.safetensors",
    "missing, below a file": "x.safetensors/y.safetensors",
    "missing, with a name that no disk takes": "n" * 300 + ".safetensors",
    "another one than the tensor's": "y.safetensors",
}


def malformed_indexes(name: str) -> dict[str, tuple[bytes, str | None]]:
    """Indexes with a tensor of that name, or none; and the name of what is wrong, where it is a tensor."""
    key = json.dumps(name).encode()
    return {
        "empty": (b"", None),
        "cut": (naming(name, "x.safetensors")[:-4], None),
        "no JSON": (b"<html>", None),
        "an array": (b"[]", None),
        "no UTF-8": (b'{"weight_map":{"\xff":"x.safetensors"}}', None),
        "half a surrogate pair": (b'{"weight_map":{"\\ud800":"x.safetensors"}}', None),
        "no weight_map": (b'{"metadata":{}}', None),
        "a weight_map that is an array": (b'{"weight_map":[' + key + b"]}", None),
        "a weight_map of nothing": (b'{"weight_map":{}}', None),
        "two of them": (b'{"weight_map":{},"weight_map":{}}', None),
        "a tensor twice": (b'{"weight_map":{%s:"x.safetensors",%s:"y.safetensors"}}' % (key, key), name),
        "nesting without end": (b'{"weight_map":' + b"[" * 100_000, None),
        **{f"a shard's name that is {case}": (naming(name, shard), name) for case, shard in SHARD_NAMES.items()},
    }


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("case", malformed_indexes(""))
@pytest.mark.parametrize("how", ["named", "in a folder"])
def test_a_malformed_index_is_refused(tmp_path: Path, case: str, how: str, name: str) -> None:
    write_shards(tmp_path, {"m/x.safetensors": ["fine"], "m/y.safetensors": ["b"], "x.safetensors": ["a"]})
    content, tensor = malformed_indexes(name)[case]
    index = tmp_path / "m" / INDEX_NAME
    index.write_bytes(content)
    error = refusal(index if how == "named" else tmp_path / "m")
    assert error.tensor == tensor
    assert error.path == str(index) or "missing" in case
    assert quoted(str(index)) in str(error)


def test_a_tensor_in_another_shard_is_told_with_both(tmp_path: Path) -> None:
    write_shards(tmp_path, {"x.safetensors": ["a"], "y.safetensors": ["b"]})
    index = write_index(tmp_path, {"a": "x.safetensors", "b": "x.safetensors", "\n": "y.safetensors"})
    error = refusal(tmp_path)
    assert (error.path, error.tensor, error.found, error.expected) == (
        str(index), "b", "it in 'y.safetensors'", "it in 'x.safetensors'",
    )  # fmt: skip
    assert "fetch the model again" in error.hint


def test_a_shard_that_is_missing_is_told_with_what_is_missed_and_who_says_so(tmp_path: Path) -> None:
    write_shards(tmp_path, {ONE: ["a"]})
    index = write_index(tmp_path, {"a": ONE, "c\n": TWO, "b": TWO, "d": TWO})
    error = refusal(tmp_path)
    assert (error.path, error.tensor) == (str(tmp_path / TWO), "c\n")
    assert f"'{index}' names it for 'c\\n' and 2 more tensors" in error.expected
    for cure in ("fetch it again", "fastload warm", "fastload verify", "--repair"):
        assert cure in error.hint


@pytest.mark.parametrize("how", ["named", "in a folder"])
def test_a_shard_that_the_index_leaves_out_is_told_where_a_tensor_is_in_no_other(tmp_path: Path, how: str) -> None:
    write_shards(tmp_path, {ONE: ["a"], TWO: ["b"], f"._{TWO}": ["b"]})
    index = write_index(tmp_path, {"a": ONE, "b": ONE})
    error = refusal(index if how == "named" else tmp_path)
    assert error.tensor == "b"
    assert error.found == f"it in no shard that the index names (beside it, and not named: '{TWO}')"
    (tmp_path / TWO).unlink()
    assert refusal(tmp_path).found == "it in no shard that the index names"


def test_an_index_larger_than_its_cap_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).touch()
    os.truncate(tmp_path / INDEX_NAME, 1 << 40)
    assert "at most 100,000,000" in refusal(tmp_path).expected


def test_an_index_may_be_named_and_then_rules(tmp_path: Path) -> None:
    write_shards(tmp_path, {"x.safetensors": ["a", "b"], "model.safetensors": ["c"]})
    for name in ("x.safetensors.index.json", "x.safetensors.index.fp16.json"):
        assert names(fetch(Source(write_index(tmp_path, {"b": "x.safetensors"}, name)))) == ["b"]


def test_what_the_index_does_not_name_is_not_even_opened(tmp_path: Path) -> None:
    write_shards(tmp_path, {"x.safetensors": ["a"]})
    (tmp_path / "consolidated.safetensors").write_bytes(b"garbage")
    write_index(tmp_path, {"a": "x.safetensors"})
    assert names(fetch(Source(tmp_path))) == ["a"]


# --- the folder ----------------------------------------------------------------------------------------------------


def only_bin(folder: Path) -> None:
    (folder / "pytorch_model.bin").touch()


def only_gguf(folder: Path) -> None:
    (folder / "model-Q4_K_M.gguf").touch()


def only_tflite(folder: Path) -> None:
    (folder / "model.tflite").touch()


def only_config(folder: Path) -> None:
    (folder / "config.json").touch()


def nothing(folder: Path) -> None:
    assert folder.is_dir()


def a_gap(folder: Path) -> None:
    write_shards(folder, {TWO: ["a"]})


def a_name_in_two_shards(folder: Path) -> None:
    write_shards(folder, {ONE: ["a"], TWO: ["a"]})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (only_bin, "convert the .bin weights"),
        (only_gguf, "convert the .gguf weights"),
        (only_tflite, "convert the .tflite weights"),
        (only_config, "'config.json'"),
        (nothing, "an empty folder"),
        (a_gap, "1 of 2 shards"),
        (a_name_in_two_shards, "'a'"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path)
    assert said in str(refusal(tmp_path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    assert "another kind" in refusal(tmp_path / "model.gguf").found


def test_a_variant_and_a_subfolder_are_found(tmp_path: Path) -> None:
    write_shards(tmp_path, {"unet/model.safetensors": ["a"], "unet/model.fp16.safetensors": ["b"]})
    assert names(fetch(Source(tmp_path, "unet"))) == ["a"]
    assert names(fetch(Source(tmp_path, "unet", "fp16"))) == ["b"]
    assert names(fetch(Source(tmp_path / "unet", variant="fp16"))) == ["b"]


def test_the_index_of_a_variant_is_a_model_by_its_path(tmp_path: Path) -> None:
    write_shards(tmp_path, {"x.safetensors": ["a"]})
    path = tmp_path / "model.safetensors.index.fp8-e4m3.json"
    path.write_text('{"weight_map":{"a":"x.safetensors"}}')
    assert names(fetch(Source(path))) == ["a"]


@pytest.mark.parametrize("subfolder", ["nul\0", "\ud800"])
def test_a_subfolder_that_cannot_be_a_path_is_told_so(tmp_path: Path, subfolder: str) -> None:
    with pytest.raises(UsageError, match="cannot be a path"):
        fetch(Source(tmp_path, subfolder))


@pytest.mark.parametrize("subfolder", ["..", "../x", "unet/../..", "/etc", "unet/../../x"])
def test_a_subfolder_that_leads_out_is_refused(tmp_path: Path, subfolder: str) -> None:
    (tmp_path / "unet").mkdir()
    with pytest.raises(UsageError, match="no plain relative path"):
        fetch(Source(tmp_path, subfolder))


@pytest.mark.parametrize("subfolder", ["gone", "file", "file/x", "n" * 300])
def test_a_subfolder_that_is_not_there_is_not_found_and_those_there_are_named(tmp_path: Path, subfolder: str) -> None:
    (tmp_path / "vae\n").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ModelNotFoundError) as caught:
        fetch(Source(tmp_path, subfolder))
    assert "vae" in caught.value.hint
    assert caught.value.hint.isprintable()


@pytest.mark.parametrize("source", [Source("", "unet"), Source("", None, "fp16")])
def test_a_file_has_neither_subfolder_nor_variant(tmp_path: Path, source: Source) -> None:
    write_shards(tmp_path, {"x.safetensors": ["a"]})
    with pytest.raises(UsageError, match="is a file"):
        fetch(Source(tmp_path / "x.safetensors", source.subfolder, source.variant))


# --- the path ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gone", "gone.safetensors", INDEX_NAME, "n" * 300, "a/b/c"])
def test_a_path_where_nothing_is_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        fetch(Source(tmp_path / name))
    assert caught.value.searched == (str(tmp_path / name),)


@pytest.mark.parametrize("model", ["", "/a\0b", "/\ud800", b"/bytes", 3, None])
def test_what_is_no_path_is_refused(model: str) -> None:
    with pytest.raises(UsageError):
        fetch(Source(model))


def test_a_relative_path_in_a_folder_that_is_gone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="folder"):
        fetch(Source("./model"))


def test_a_bare_word_that_is_a_folder_here_is_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama").mkdir()
    write_shards(tmp_path, {"llama/model.safetensors": ["a"]})
    with pytest.raises(UsageError, match=r"'\./llama'"):
        fetch(Source("llama"))
    assert names(fetch(Source("./llama"))) == names(fetch(Source(Path("llama")))) == ["a"]


# --- storage -------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder with a checkpoint that every user can reach, which is not so of pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    write_shards(folder, {"sub/x.safetensors": ["a"], "model.safetensors": ["a"]})
    write_index(folder / "sub", {"a": "x.safetensors"})
    yield folder
    shutil.rmtree(folder)


UNREADABLE = {
    "the shard": ("model.safetensors", "."),
    "the folder": (".", "."),
    "the folder of a shard that is named": (".", "model.safetensors"),
    "the index": (f"sub/{INDEX_NAME}", "sub"),
    "the folder of an index that is named": ("sub", f"sub/{INDEX_NAME}"),
    "a folder on the way": (".", "sub"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_this_user_may_not_read_is_a_store_error(shared_folder: Path, case: str) -> None:
    locked, model = UNREADABLE[case]
    (shared_folder / locked).chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root reads everything, and may be somebody else for a moment
    try:
        with pytest.raises(StoreError, match="Permission denied") as caught:
            fetch(Source(shared_folder / model))
    finally:
        os.seteuid(user)
        (shared_folder / locked).chmod(0o755)
    assert caught.value.hint
    assert str(shared_folder) in caught.value.path


def test_a_folder_that_may_be_searched_but_not_listed_still_serves_what_is_named(shared_folder: Path) -> None:
    shared_folder.chmod(0o711)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        assert names(fetch(Source(shared_folder / "model.safetensors"))) == ["a"]
        with pytest.raises(ModelNotFoundError):
            fetch(Source(shared_folder, "gone"))
        with pytest.raises(StoreError):
            fetch(Source(shared_folder))
    finally:
        os.seteuid(user)


def test_storage_that_fails_to_read_is_a_store_error(tmp_path: Path) -> None:
    """The memory of a process is a regular file to ``stat``, and its first page an I/O error to whoever reads it."""
    link = tmp_path / "x.safetensors"
    link.symlink_to("/proc/self/mem")
    with pytest.raises(StoreError, match="Input/output error") as caught:
        fetch(Source(link))
    assert caught.value.path == str(link)


def test_too_few_descriptors_is_a_store_error_that_says_so(tmp_path: Path) -> None:
    write_shards(tmp_path, {"x.safetensors": ["a"]})
    program = """if True:
        import os, resource, sys
        from fastload import errors
        from fastload._fetch.checkpoint import fetch as checkpoint
        from fastload._fetch.find.model import Source
        from fastload.options import decide_settings
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        taken = []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        try:
            checkpoint.fetch(Source(sys.argv[1]), decide_settings(None, {}))
        except errors.StoreError as error:
            print(error.hint)
    """
    arguments = [sys.executable, "-c", program, str(tmp_path / "x.safetensors")]
    assert "ulimit" in subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def test_a_refusal_is_the_same_fact_in_json() -> None:
    error = FormatError("/x", "this", "that", tensor="a\n")
    assert json.loads(json.dumps(error.to_dict()))["tensor"] == "a\n"


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"PK\x03\x04 and the rest of an archive", "zip archive"),
        (b"GGUF\x03\x00\x00\x00\x00\x00", "GGUF"),
        (b"\xff" * 20, "no safetensors file"),
    ],
)
def test_what_is_often_found_under_the_name_of_a_shard_is_recognised(tmp_path: Path, start: bytes, hint: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(start)
    with pytest.raises(FormatError, match=hint):
        fetch(Source(tmp_path))
