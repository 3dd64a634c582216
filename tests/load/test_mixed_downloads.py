"""Notes of downloads say what each file is; where they name several commits, not that they are one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fastload
from models import assert_same
from stored_models import COMMIT, write_download_metadata

if TYPE_CHECKING:
    from proven_models import Model

SHARD = "model-00001-of-00002.safetensors"
OTHER_COMMIT = "decade" * 6 + "abcd"


def test_files_of_two_commits_are_loaded_with_a_warning(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """So an ``hf download`` of a later commit leaves them that ended after its first file."""
    folder = model.downloaded()
    assert_same(fastload.load(folder), model.tensors)
    assert "several commits" not in caplog.text
    write_download_metadata(folder, OTHER_COMMIT, {SHARD: model.files[SHARD]})
    weights = fastload.load(folder)
    assert_same(weights, model.tensors)
    said = [record.getMessage() for record in caplog.records if "several commits" in record.getMessage()]
    assert len(said) == 1
    assert OTHER_COMMIT[:12] in said[0] and COMMIT[:12] in said[0] and SHARD in said[0]


@pytest.mark.parametrize("name", ["config.json", "README.md"])
def test_what_makes_no_weights_may_be_of_another_commit(
    model: Model, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    folder = model.downloaded()
    (folder / name).write_bytes(b"{}")
    write_download_metadata(folder, OTHER_COMMIT, {name: b"{}"})
    assert_same(fastload.load(folder), model.tensors)
    assert "several commits" not in caplog.text
