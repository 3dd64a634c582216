"""Where nothing has to be read, the headers are all there is to prove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import fastload
from fastload import IntegrityError
from stored_models import write_folder
from writing import one_tensor, pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastload.report import Report

WITHOUT_BYTES = pack({"z": ("F32", [0, 3], b"")})
WAYS: dict[str, tuple[bytes, Callable[..., Report]]] = {
    "no tensor is wanted": (
        one_tensor(),
        lambda path, **how: fastload.load(path, tensors=lambda _: False, **how).report,
    ),
    "no parameter has one": (
        one_tensor(),
        lambda path, **how: fastload.load_into(torch.nn.Identity(), path, strict=False, **how),
    ),
    "the file has none": (pack({}), lambda path, **how: fastload.load(path, **how).report),
    "a tensor without bytes": (WITHOUT_BYTES, lambda path, **how: fastload.load(path, **how).report),
}


@pytest.fixture(params=WAYS.values(), ids=tuple(WAYS))
def way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Callable[..., Report]]:
    content, load = request.param
    return write_folder(tmp_path / "name", {"model.safetensors": content}), load


def test_the_headers_are_proven_by_a_manifest(way: tuple[Path, Callable[..., Report]]) -> None:
    folder, load = way
    fastload.verify(folder, record=True)
    report = load(folder, verify="require")
    assert report.evidence == "manifest (recorded)"
    assert report.bytes == 0
    assert "unverified" not in report.evidence_reason


def test_where_nothing_proves_them_it_is_said(way: tuple[Path, Callable[..., Report]]) -> None:
    folder, load = way
    report = load(folder)
    assert report.evidence == "none"
    assert "unverified: nothing " in report.evidence_reason and "left before" not in report.evidence_reason
    with pytest.raises(IntegrityError, match="nothing is known"):
        load(folder, verify="require")
