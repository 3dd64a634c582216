"""What begins before the headers are read, because a device will want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import fastload
from fastload._fetch.checkpoint import folder as room
from fastload._fetch.checkpoint.fetch import fetch
from fastload._fetch.evidence.evidence import Evidence
from fastload._fetch.find.model import Source
from fastload._load.target.cuda_early import choose_digests
from fastload.options import decide_settings
from models import MIB, save_large

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_proves_a_model_is_told_before_its_headers_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, manifests = tmp_path / "model", tmp_path / "manifests"
    model.mkdir()
    manifests.mkdir()
    save_large(model, 2, MIB)
    options = fastload.Options(manifests=str(manifests))
    fastload.verify(model, record=True, options=options)
    told: list[object] = []
    read_headers = room._read_shards

    def watched(*arguments: Any) -> Any:
        told.append("headers")
        return read_headers(*arguments)

    monkeypatch.setattr(room, "_read_shards", watched)
    fetch(Source(model), decide_settings(options, {}), when_weighed=told.append).close()
    assert [type(each) for each in told] == [Evidence, str]
    assert isinstance(told[0], Evidence)
    assert told[0].has_blocks
    assert choose_digests(torch.device("cpu"), told[0]) is None, "the CPU needs no kernels"
