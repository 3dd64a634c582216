"""The way past the host on a real device: with a pretended storage wherever there is a GPU, in earnest where it can be.

`make test-gpu` runs these; without a device they skip and say so.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest
import torch

import fastload
from fake_kvikio import FakeFile, FakeKvikio
from fastload._load.read import past_host
from fastload._place.landing import LandingBuffer
from fastload._place.numa import go_near
from fastload._read import gds_switch
from fastload._read.cuda_driver import DeviceMemory, load_driver
from fastload._read.file import identify
from fastload._read.gds import CuFiles, import_kvikio
from fastload._read.gds_checks import check_file, check_machine
from fastload._read.gds_health import GdsHealth
from fastload._read.gds_statistics import ReadCounts
from fastload._read.reader import PlainFile
from fastload._settings.cufile import CufileSettings
from models import MIB, assert_same, save_large

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]
needs_kvikio = pytest.mark.skipif(importlib.util.find_spec("kvikio") is None, reason="kvikio is not installed")


class DeviceFile(FakeFile):
    """Storage that writes to device memory: by the driver, from the host."""

    def put(self, address: int, content: bytes) -> None:
        source = ctypes.create_string_buffer(content, len(content))
        load_driver().copy_to_device(DeviceMemory(address, len(content)), ctypes.addressof(source), len(content))


class DeviceKvikio(FakeKvikio):
    """A kvikio that brings bytes to a real device."""

    @property
    def file_type(self) -> type[FakeFile]:
        return DeviceFile


class Counting:
    """Statistics that call all of it GPUDirect Storage."""

    def __init__(self, kvikio: FakeKvikio) -> None:
        self._kvikio = kvikio

    def start(self) -> None:
        """They are on."""

    def read(self) -> ReadCounts:
        return ReadCounts(len(self._kvikio.reads), 0)


@pytest.fixture
def kvikio(monkeypatch: pytest.MonkeyPatch) -> FakeKvikio:
    """A machine that could, as far as anybody asks."""
    kvikio = DeviceKvikio()
    health = GdsHealth()
    for name in ("kvikio", "kvikio.defaults"):
        monkeypatch.setitem(sys.modules, name, kvikio)
    monkeypatch.setattr(gds_switch, "load_statistics", lambda: Counting(kvikio))
    monkeypatch.setattr(past_host, "check_machine", lambda _: "")
    monkeypatch.setattr(past_host, "check_file", lambda _, **__: "")
    monkeypatch.setattr(past_host, "process_health", lambda: health)
    return kvikio


class Plain:
    """What takes registrations and does nothing with them."""

    def register(self, memory: DeviceMemory) -> None:
        """It is."""

    def release(self, memory: DeviceMemory) -> bool:
        return True


def test_torch_takes_memory_of_the_drivers_own() -> None:
    files: Any = Plain()
    landing = LandingBuffer(torch.device("cuda", torch.cuda.current_device()), 16 * MIB, files)
    content = os.urandom(MIB)
    source = ctypes.create_string_buffer(content, MIB)
    load_driver().copy_to_device(landing.memory, ctypes.addressof(source), MIB)
    assert (landing.tensor.dtype, landing.tensor.numel()) == (torch.uint8, 16 * MIB)
    assert landing.tensor.data_ptr() == landing.memory.address
    assert landing.tensor[:MIB].cpu().numpy().tobytes() == content
    landing.close()


def test_the_device_has_a_place_on_its_bus() -> None:
    address = load_driver().pci_address(torch.cuda.current_device())
    assert os.path.isdir(f"/sys/bus/pci/devices/{address.lower()}") or not os.path.isdir("/sys/bus/pci/devices")
    go_near(torch.device("cuda", torch.cuda.current_device()))


@pytest.mark.parametrize("is_proven", [False, True])
def test_a_load_past_a_pretended_host(tmp_path: Path, kvikio: FakeKvikio, *, is_proven: bool) -> None:
    content = save_large(tmp_path, 16, 4 * MIB + 4)
    options = fastload.Options(manifests=str(tmp_path / "manifests"))
    if is_proven:
        (tmp_path / "manifests").mkdir()
        fastload.verify(tmp_path, record=True, options=options)
    weights = fastload.load(tmp_path, device="cuda", reader="gds", options=options)
    assert_same(weights, content)
    assert weights.report.reader.startswith("gds+")
    assert kvikio.reads
    assert not kvikio.open_files
    assert not kvikio.registered.total()


def test_a_load_whose_cufile_fails_is_right(tmp_path: Path, kvikio: FakeKvikio) -> None:
    content = save_large(tmp_path, 64, 4 * MIB)
    # Each lane may have asked once before three errors are known.
    kvikio.failures = {"read": deque([RuntimeError("cuFile error")] * 64)}
    weights = fastload.load(tmp_path, device="cuda", options=fastload.Options(gds="on"))
    assert_same(weights, content)
    assert "gds" not in weights.report.reader


@needs_kvikio
def test_kvikio_reads_into_a_landing_buffer(tmp_path: Path) -> None:
    """In its compatibility mode, which any machine has."""
    path = tmp_path / "f"
    path.write_bytes(os.urandom(16 * MIB))
    files = CuFiles(import_kvikio(), health=GdsHealth(), compat_mode="ON")
    landing = LandingBuffer(torch.device("cuda", torch.cuda.current_device()), 16 * MIB, files)
    reader = files.open(PlainFile(str(path), identify(path.stat())))
    reader.read_onto(landing.memory, 4 * MIB, 8 * MIB)
    reader.close()
    assert landing.tensor[: 8 * MIB].cpu().numpy().tobytes() == path.read_bytes()[4 * MIB : 12 * MIB]
    landing.close()


@needs_kvikio
def test_gpudirect_storage_in_earnest(tmp_path: Path) -> None:
    """On the few machines that have it: asked for by name, and then it must be."""
    content = save_large(tmp_path, 32, 16 * MIB)
    path = tmp_path / "model.safetensors"
    why = check_machine(CufileSettings()) or check_file(PlainFile(str(path), identify(path.stat())), allows_cached=True)
    if why:
        pytest.skip(f"no GPUDirect Storage here: {why}")
    weights = fastload.load(tmp_path, device="cuda", reader="gds")
    assert_same(weights, content)
    assert weights.report.reader.startswith("gds+"), weights.report.reader_reason
