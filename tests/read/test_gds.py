"""The adapter to kvikio: what it asks for, what it makes of errors, and that nothing stays open or changed.

On a fake kvikio, for its errors; and, where kvikio is installed, on the real one over a stub of CUDA's driver.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fake_kvikio import CompatMode, FakeKvikio
from fastload._read import gds
from fastload._read.cuda_driver import DeviceMemory, load_driver
from fastload._read.file import identify
from fastload._read.gds import CuFiles, import_kvikio
from fastload._read.gds_health import GdsHealth
from fastload._read.reader import PlainFile
from fastload.errors import FormatError, IntegrityError, UnsupportedError
from shard_files import no_descriptor_left
from stub_device import load_stub, needs_kvikio, needs_stub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any
MIB = 1 << 20
CONTENT = os.urandom(3 * MIB + 5)


@pytest.fixture
def shard(tmp_path: Path) -> PlainFile:
    path = tmp_path / "model.safetensors"
    path.write_bytes(CONTENT)
    return PlainFile(str(path), identify(path.stat()))


@pytest.fixture
def memory() -> Iterator[DeviceMemory]:
    """A device's, as far as anybody here can see."""
    room = ctypes.create_string_buffer(2 * MIB)
    yield DeviceMemory(ctypes.addressof(room), 2 * MIB)
    del room


def in_memory(memory: DeviceMemory, nbytes: int) -> bytes:
    return ctypes.string_at(memory.address, nbytes)


def open_files(kvikio: FakeKvikio) -> CuFiles:
    return CuFiles(kvikio, health=GdsHealth())


def test_bytes_arrive_and_nothing_stays_open(shard: PlainFile, memory: DeviceMemory) -> None:
    kvikio = FakeKvikio()
    with no_descriptor_left():
        reader = open_files(kvikio).open(shard)
        reader.read_onto(memory, MIB, MIB)
        reader.close()
    assert in_memory(memory, MIB) == CONTENT[MIB : 2 * MIB]
    assert kvikio.open_files == 0


def test_kvikio_must_not_read_through_the_host_by_itself(shard: PlainFile, memory: DeviceMemory) -> None:
    """Its compatibility mode is off while we open and register, and what it was before afterwards."""
    kvikio = FakeKvikio()
    files = open_files(kvikio)
    files.open(shard).close()
    files.register(memory)
    assert files.release(memory)
    assert kvikio.opened_in == [CompatMode.OFF]
    assert kvikio.settings == {"compat_mode": CompatMode.AUTO}


def test_short_reads_are_carried_on(shard: PlainFile, memory: DeviceMemory) -> None:
    kvikio = FakeKvikio()
    kvikio.short = 256 << 10
    reader = open_files(kvikio).open(shard)
    reader.read_onto(memory, 0, MIB)
    reader.close()
    assert in_memory(memory, MIB) == CONTENT[:MIB]
    assert len(kvikio.reads) == 4


@pytest.mark.parametrize("short", [0, 100])
def test_a_read_that_does_not_come_to_its_end_is_refused(shard: PlainFile, memory: DeviceMemory, short: int) -> None:
    kvikio = FakeKvikio()
    kvikio.short = short
    reader = open_files(kvikio).open(shard)
    with pytest.raises(UnsupportedError, match=f"{short} of 1,048,576 bytes at 0"):
        reader.read_onto(memory, 0, MIB)
    reader.close()


def test_errors_of_cufile_are_ours(shard: PlainFile, memory: DeviceMemory) -> None:
    broken = RuntimeError("cuFile error at: file_handle.cpp:1: GPU memory pinning failed")
    kvikio = FakeKvikio({"open": [broken], "read": [broken], "register": [broken]})
    files = open_files(kvikio)
    with no_descriptor_left(), pytest.raises(UnsupportedError, match=r"cannot open .*pinning failed"):
        files.open(shard)
    with pytest.raises(UnsupportedError, match="cannot register 2,097,152 bytes"):
        files.register(memory)
    reader = files.open(shard)
    with pytest.raises(UnsupportedError, match="cannot read 1,048,576 bytes at 0"):
        reader.read_onto(memory, 0, MIB)
    reader.close()
    assert kvikio.settings == {"compat_mode": CompatMode.AUTO}


def test_what_cufile_does_not_let_go_of_is_noted(memory: DeviceMemory) -> None:
    health = GdsHealth()
    files = CuFiles(FakeKvikio({"deregister": [RuntimeError("busy")] * 3}), health=health)
    assert [files.release(memory) for _ in range(3)] == [False] * 3
    assert "3 errors of cuFile" in health.verdict


def test_a_file_that_is_missing_is_no_matter_of_cufile(tmp_path: Path, shard: PlainFile) -> None:
    Path(shard.path).unlink()
    with pytest.raises(FormatError, match="no file"):
        open_files(FakeKvikio()).open(shard)


def test_a_file_that_changes_under_the_load_is_seen(shard: PlainFile, memory: DeviceMemory) -> None:
    reader = open_files(FakeKvikio()).open(shard)
    with Path(shard.path).open("r+b") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match="the file changed"):
        reader.read_onto(memory, 0, MIB)
    reader.close()


def test_three_errors_are_enough() -> None:
    health = GdsHealth()
    for number in range(3):
        assert not health.verdict
        health.note(UnsupportedError(f"failure {number}"))
    assert health.verdict == "3 errors of cuFile in this process, the last one: failure 2"


def test_without_kvikio_it_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kvikio", None)
    with pytest.raises(UnsupportedError, match=r"without kvikio.*docs/install\.md"):
        import_kvikio()


def test_only_one_module_imports_kvikio() -> None:
    root = Path(gds.__file__).parents[1]
    importers = [path.name for path in root.rglob("*.py") if "import kvikio" in path.read_text()]
    assert importers == ["gds.py"]


@pytest.fixture
def stub(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_stub(tmp_path_factory.getbasetemp())


@needs_stub
def test_the_driver_gives_memory_and_takes_it_back(stub: Any) -> None:
    driver = load_driver()
    driver.enter(0)
    before = stub.stub_count_allocations()
    memory = driver.allocate(MIB)
    source, target = ctypes.create_string_buffer(CONTENT[:MIB], MIB), ctypes.create_string_buffer(MIB)
    driver.pin(ctypes.addressof(source), MIB)
    driver.copy_to_device(memory, ctypes.addressof(source), MIB)
    driver.copy_to_host(ctypes.addressof(target), memory, MIB)
    driver.unpin(ctypes.addressof(source))
    assert target.raw == CONTENT[:MIB]
    driver.free(memory)
    assert stub.stub_count_allocations() == before
    with pytest.raises(UnsupportedError, match="cuMemFree_v2 with error 1"):
        driver.free(memory)


@needs_kvikio
def test_the_real_kvikio_reads_into_device_memory(shard: PlainFile, stub: Any) -> None:
    driver = load_driver()
    memory = driver.allocate(2 * MIB)
    files = CuFiles(import_kvikio(), health=GdsHealth(), compat_mode="ON")
    with no_descriptor_left():
        files.register(memory)
        reader = files.open(shard)
        reader.read_onto(memory, MIB, 2 * MIB)
        reader.close()
        assert files.release(memory)
    assert in_memory(memory, 2 * MIB) == CONTENT[MIB : 3 * MIB]
    driver.free(memory)


@needs_kvikio
def test_the_real_kvikio_lets_others_run_while_it_reads(shard: PlainFile, stub: Any) -> None:
    """Else eight readers would read one after another."""
    memory = load_driver().allocate(MIB)
    reader = CuFiles(import_kvikio(), health=GdsHealth(), compat_mode="ON").open(shard)
    reader.read_onto(memory, 0, MIB)  # what happens once is over
    stub.stub_delay(200_000)
    try:
        began = time.perf_counter()
        threads = [threading.Thread(target=reader.read_onto, args=(memory, 0, MIB)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.perf_counter() - began < 0.6
    finally:
        stub.stub_delay(0)
    reader.close()
    load_driver().free(memory)


@needs_kvikio
def test_the_real_kvikio_refuses_what_ends_too_early(shard: PlainFile, stub: Any) -> None:
    memory = load_driver().allocate(2 * MIB)
    reader = CuFiles(import_kvikio(), health=GdsHealth(), compat_mode="ON").open(shard)
    with pytest.raises(UnsupportedError, match="EOF"):
        reader.read_onto(memory, 2 * MIB, 2 * MIB)
    reader.close()
    load_driver().free(memory)
