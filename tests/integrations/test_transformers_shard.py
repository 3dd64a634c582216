"""A shard as transformers opens it: asked by several threads, in another order than the file's."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from fastload.integrations.transformers import Shard
from stored_models import COMMIT, write_cache
from writing import pack

if TYPE_CHECKING:
    from pathlib import Path

    import torch

pytestmark = pytest.mark.usefixtures("leaks_nothing")

_NAMES = [f"layer.{number}" for number in range(8)]
_CONTENT = {name: bytes([number + 1]) * (1 << 20) for number, name in enumerate(_NAMES)}
_FILE = pack({name: ("U8", [1 << 20], content) for name, content in _CONTENT.items()})


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file of eight tensors."""
    written = tmp_path / "model.safetensors"
    written.write_bytes(_FILE)
    return str(written)


def test_tensors_in_any_order_by_many_threads_and_twice(path: str) -> None:
    found: dict[str, torch.Tensor] = {}
    with Shard(path, None) as shard:
        assert shard.keys() == _NAMES

        def take(name: str) -> None:
            found[name] = shard.get_slice(name)[...]

        threads = [threading.Thread(target=take, args=(name,)) for name in reversed(_NAMES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        again = shard.get_tensor(_NAMES[0])
    assert {name: tensor.numpy().tobytes() for name, tensor in found.items()} == _CONTENT
    assert again.numpy().tobytes() == _CONTENT[_NAMES[0]]


def test_a_slice_knows_its_dtype_and_shape_before_it_is_read(path: str) -> None:
    with Shard(path, None) as shard:
        cut = shard.get_slice("layer.3")
        assert (cut.get_dtype(), cut.get_shape()) == ("U8", [1 << 20])
        assert cut[3:5].tolist() == [4, 4]


@pytest.mark.parametrize("evidence", ["manifest", "sha256"])
def test_what_was_read_is_proven_when_it_is_closed(evidence: str, tmp_path: Path) -> None:
    """The first tensor is right; a digest of the whole file says only at its end that the last one is not."""
    options = Options(local=str(tmp_path / "local"), tiers="local", staging_bytes="4Mi")
    written = write_cache(tmp_path / "local", "org/name", COMMIT, {"model.safetensors": _FILE}) / "model.safetensors"
    if evidence == "manifest":
        fastload.warm("org/name", options=options)
    written.resolve().write_bytes(_FILE[:-1] + b"\0")
    with pytest.raises(fastload.IntegrityError, match=written.name), Shard(str(written), options) as shard:
        shard.get_tensor(_NAMES[0])


def test_an_error_inside_is_the_one_that_comes_out(path: str) -> None:
    with pytest.raises(KeyError, match="nothing"), Shard(path, None) as shard:  # noqa: PT012
        shard.get_tensor(_NAMES[0])
        shard.get_tensor("nothing")
