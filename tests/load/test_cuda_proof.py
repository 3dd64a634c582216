"""Proofs on a real CUDA device: what arrives wrong is found there and mended. `make test-gpu`; else they skip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import fastload
from fastload import IntegrityError
from fastload._load.request.device import parse_device
from fastload._place.device_digests import _begin
from fastload._place.gpu_digest import BlockDigester
from models import MIB, assert_same
from proven_models import REPO, Model, flip

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

DEVICE = "cuda"
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def kernels() -> str:
    """The device; its kernels are there, so that it digests all that is loaded from here on."""
    device = parse_device(DEVICE)
    assert _begin(device).exception(timeout=120) is None
    return str(device)


def module_of(model: Model, device: str) -> nn.Module:
    """A module with the model's tensors as buffers, all zero."""
    module = nn.Module()
    for part in ("1", "2"):
        module.add_module(part, nn.Module())
    for name, tensor in model.tensors.items():
        getattr(module, name[0]).register_buffer(name[2:], torch.zeros_like(tensor, device=device))
    return module


def test_the_device_digests_what_is_loaded(model: Model, kernels: str) -> None:
    weights = fastload.load(model.warmed(), device=DEVICE)
    assert_same(weights, model.tensors)
    report = weights.report
    assert (report.evidence, report.blocks_verified, report.blocks_reread) == ("manifest", 4, 0)
    assert (report.hashed_on, report.hashed_reason) == (kernels, "the blocks are digested where they arrive")


def test_the_device_digests_what_is_streamed(model: Model, kernels: str) -> None:
    with fastload.stream(model.warmed(), device=DEVICE, verify="require") as stream:
        assert_same(dict(stream), model.tensors)
    assert (stream.report.hashed_on, stream.report.blocks_verified) == (kernels, 4)


def test_the_device_digests_what_is_loaded_into_a_module(model: Model, kernels: str) -> None:
    module = module_of(model, kernels)
    report = fastload.load_into(module, model.warmed())
    assert_same(module.state_dict(), model.tensors)
    assert (report.hashed_on, report.blocks_verified) == (kernels, 4)


def test_a_part_is_digested_by_whole_blocks(model: Model, kernels: str) -> None:
    weights = fastload.load(model.warmed(), device=DEVICE, tensors="1.0")
    assert_same(weights, {"1.0": model.tensors["1.0"]})
    assert (weights.report.hashed_on, weights.report.blocks_verified) == (kernels, 1)


@pytest.mark.usefixtures("kernels")
def test_digests_of_whole_files_are_taken_on_the_cpu_and_it_is_said(model: Model) -> None:
    report = fastload.load(model.cached(), device=DEVICE).report
    assert (report.evidence, report.hashed_on) == ("sha256", "cpu")
    assert report.hashed_reason == "digests of whole files are taken in order"


def test_what_is_damaged_on_the_disk_is_mended(model: Model, kernels: str) -> None:
    folder = model.warmed()
    flip(folder / SHARD, 5 * MIB)
    weights = fastload.load(REPO, device=DEVICE, options=model.options)
    assert_same(weights, model.tensors)
    assert (weights.report.blocks_repaired, weights.report.hashed_on) == (1, kernels)
    assert (folder / SHARD).read_bytes() == model.files[SHARD]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("at", [9, MIB, 4 * MIB - 1, 4 * MIB, -1], ids=str)
def test_what_nobody_can_mend_is_named_by_its_block(model: Model, at: int) -> None:
    folder = model.warmed()
    at %= len(model.files[SHARD])
    flip(folder / SHARD, at)
    with pytest.raises(IntegrityError) as caught:
        fastload.load(folder, device=DEVICE)
    assert (caught.value.path, caught.value.offset) == (str(folder / SHARD), at // (4 * MIB) * 4 * MIB)
    with pytest.raises(IntegrityError):
        for _ in fastload.stream(folder, device=DEVICE):
            pass
    with pytest.raises(IntegrityError):
        fastload.load_into(module_of(model, DEVICE), folder)
    flip(folder / SHARD, at)
    assert_same(fastload.load(folder, device=DEVICE), model.tensors)


class Flipping:
    """Flips a bit of what has arrived on the device, before it is digested there: the first time, or each time."""

    def __init__(self, patch: pytest.MonkeyPatch, *, once: bool) -> None:
        self._turns = threading.Semaphore(1) if once else None
        self.count = 0
        digest_on = BlockDigester.digest_on

        def flipped(
            digester: BlockDigester, stream: torch.cuda.Stream, buffer: torch.Tensor, length: int
        ) -> torch.Tensor:
            with torch.cuda.stream(stream):
                self._flip(buffer)
            return digest_on(digester, stream, buffer, length)

        patch.setattr(BlockDigester, "digest_on", flipped)

    def _flip(self, buffer: torch.Tensor) -> None:
        if self._turns is None or self._turns.acquire(blocking=False):  # lanes are threads
            buffer[MIB].bitwise_xor_(64)
            self.count += 1


def test_a_bit_that_flips_on_the_way_to_the_device_is_healed(
    model: Model, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.warmed()
    flipping = Flipping(monkeypatch, once=True)
    weights = fastload.load(folder, device=DEVICE)
    assert flipping.count
    assert_same(weights, model.tensors)
    report = weights.report
    assert (report.hashed_on, report.blocks_reread, report.blocks_repaired) == (kernels, 1, 0)


def test_a_device_that_keeps_flipping_bits_is_named(
    model: Model, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = model.warmed()
    Flipping(monkeypatch, once=False)
    with pytest.raises(IntegrityError, match=f"on {kernels}") as caught:
        fastload.load(folder, device=DEVICE)
    assert "nvidia-smi" in caught.value.hint


_TWICE = """
import json, sys
import fastload
from fastload._load.request.device import parse_device
from fastload._place import gpu_digest_code
from fastload._place.device_digests import _begin
from fastload.errors import UnsupportedError

def refuse(*_):
    raise UnsupportedError("a device older than these kernels")

if sys.argv[3] == "old":
    gpu_digest_code.load_function = refuse
reports = [fastload.load(sys.argv[1], device=sys.argv[2]).report]
_begin(parse_device(sys.argv[2])).exception(timeout=120)
reports.append(fastload.load(sys.argv[1], device=sys.argv[2]).report)
print(json.dumps([report.to_dict() for report in reports]))
"""


def load_twice(folder: Path, kind: str, **environment: str) -> list[dict[str, object]]:
    """The reports of two loads in a fresh process: of one that begins as the kernels do, and of one with them.

    An ``old`` device takes none of the kernels that are brought along: Triton must compile.
    """
    command = [sys.executable, "-c", _TWICE, str(folder), DEVICE, kind]
    run = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=240
    )
    assert run.returncode == 0, run.stderr
    reports: list[dict[str, object]] = json.loads(run.stdout)
    assert [report["blocks_verified"] for report in reports] == [4, 4]
    return reports


def test_without_triton_and_a_compiler_the_device_digests(model: Model, tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("raise ImportError('not here')")
    (tmp_path / "file").touch()
    here = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {"CC": str(tmp_path / "cc"), "TRITON_CACHE_DIR": str(tmp_path / "file/cache"), "PYTHONPATH": here}
    _, second = load_twice(model.warmed(), "new", **environment)
    assert second["hashed_on"] == str(parse_device(DEVICE))


def test_the_cpu_digests_until_the_kernels_are_compiled(model: Model, tmp_path: Path) -> None:
    device = str(parse_device(DEVICE))
    first, second = load_twice(model.warmed(), "old", TRITON_CACHE_DIR=str(tmp_path / "cache"))
    assert first["hashed_on"] in {"cpu", f"{device}+cpu"}
    assert "compiled" in str(first["hashed_reason"])
    assert second["hashed_on"] == device


@pytest.mark.parametrize("lacking", ["a compiler", "a cache"])
def test_what_keeps_an_old_device_from_digesting_is_said(model: Model, tmp_path: Path, lacking: str) -> None:
    (tmp_path / "file").touch()
    environment = (
        {"CC": str(tmp_path / "cc"), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
        if lacking == "a compiler"
        else {"TRITON_CACHE_DIR": str(tmp_path / "file/cache")}
    )
    _, second = load_twice(model.warmed(), "old", **environment)
    assert second["hashed_on"] == "cpu"
    assert "no block digests on cuda" in str(second["hashed_reason"])
    assert "TRITON_CACHE_DIR" in str(second["hashed_reason"])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device here")
def test_another_device_than_the_current_one(model: Model) -> None:
    other = torch.device("cuda", (torch.cuda.current_device() + 1) % torch.cuda.device_count())
    assert _begin(other).exception(timeout=120) is None
    before = torch.cuda.current_device()
    weights = fastload.load(model.warmed(), device=other)
    assert {tensor.device for tensor in weights.values()} == {other}
    assert_same(weights, model.tensors)
    assert weights.report.hashed_on == str(other)
    used = {name: tensor.clone() for name, tensor in fastload.stream(model.warmed(), device=str(other))}
    assert_same(used, model.tensors)
    assert torch.cuda.current_device() == before
