"""A small file that was signed, and whose blob git's digest names, of which no signature says anything."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import fastload
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from signing import sign, write_key
from stored_models import COMMIT, write_cache, write_folder

if TYPE_CHECKING:
    from pathlib import Path

NAME = "tokenizer.json"
BLOCK = 4 * MIB


@pytest.mark.parametrize("is_warmed", [True, False], ids=["warmed", "by-another-tool"])
def test_it_is_mended_where_it_is(model: Model, tmp_path: Path, *, is_warmed: bool) -> None:
    """The damaged blob stayed, with all other snapshots that lead to it, and a second one came, fetched as a whole."""
    model.files[NAME] = random.Random(2).randbytes(2 * BLOCK + 9)  # noqa: S311 - not for secrets
    signed = sign(write_folder(tmp_path / "signed", model.files))
    files = {**model.files, "model.sig": (signed / "model.sig").read_bytes()}
    write_cache(model.shared, REPO, COMMIT, files)
    folder = model.local / "models--org--name/snapshots" / COMMIT
    if is_warmed:
        fastload.warm(REPO, options=model.options)
    else:
        write_cache(model.local, REPO, COMMIT, files)
    blobs = folder.parent.parent / "blobs"
    before, leads_to = sorted(os.listdir(blobs)), os.readlink(folder / NAME)
    flip(folder / NAME, 5 * MIB)
    options = replace(model.options, signature_key=str(write_key(tmp_path)))
    found = fastload.verify(REPO, repair=True, options=options)
    assert [(finding.path, finding.repaired) for finding in found.findings] == [(NAME, True)]
    assert found.blocks_repaired == (1 if is_warmed else 3)
    assert (sorted(os.listdir(blobs)), os.readlink(folder / NAME)) == (before, leads_to)
    assert (folder / NAME).read_bytes() == files[NAME]
    assert fastload.verify(REPO, options=model.options).is_right
    assert_same(fastload.load(REPO, options=options), model.tensors)
