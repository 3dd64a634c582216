"""What is asked before cuFile is touched: each answer that means no, on made-up machines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from c_library import OnFileSystem
from fastload._read import kernel
from fastload._read.file import identify
from fastload._read.gds_checks import check_file, check_machine
from fastload._read.reader import PlainFile
from fastload._settings.cufile import CufileSettings, cufile_settings, find_measurements

NOTHING = CufileSettings(config="/nowhere/cufile.json")
P2PDMA = CufileSettings(config="/nowhere/cufile.json", uses_p2pdma=True)


class Made:
    """A machine's /proc, /dev and /sys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/modules", "nvidia_fs 1 1 - Live 0x0")
        self.write("proc/sys/kernel/osrelease", "6.8.0-51-generic\n")

    def write(self, path: str, text: str) -> None:
        at = self.root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)

    def load_nvidia_fs(self, *, node: bool = True) -> None:
        self.write("proc/driver/nvidia-fs/devcount", "1\n")
        if node:
            self.write("dev/nvidia-fs0", "")

    def check(self, cufile: CufileSettings = NOTHING) -> str:
        return check_machine(cufile, root=str(self.root))

    def block_device(self, device: int, name: str, *slaves: str) -> None:
        """``device`` is ``name``, on top of ``slaves``."""
        for each in (name, *slaves):
            (self.root / "sys/devices" / each).mkdir(parents=True, exist_ok=True)
        for slave in slaves:
            (self.root / "sys/devices" / name / "slaves").mkdir(exist_ok=True)
            (self.root / "sys/devices" / name / "slaves" / slave).symlink_to(self.root / "sys/devices" / slave)
        link = self.root / f"sys/dev/block/{os.major(device)}:{os.minor(device)}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(self.root / "sys/devices" / name)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "machine")


@pytest.fixture
def shard(tmp_path: Path) -> PlainFile:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(1 << 20))
    return PlainFile(str(path), identify(path.stat()))


def test_nvidia_fs_with_its_node_will_do(made: Made) -> None:
    made.load_nvidia_fs()
    assert made.check() == ""


def test_without_proc_modules_cufile_would_never_come_back(made: Made) -> None:
    made.load_nvidia_fs()
    (made.root / "proc/modules").unlink()
    assert "would wait for it for ever" in made.check()
    assert "would wait for it for ever" in made.check(P2PDMA)


def test_a_container_without_the_node_loses_descriptor_0(made: Made) -> None:
    made.load_nvidia_fs(node=False)
    assert "/dev/nvidia-fs0 is not in this container" in made.check()
    assert "/dev/nvidia-fs0 is not in this container" in made.check(P2PDMA)


@pytest.mark.parametrize(("release", "will_do"), [("6.2.0", True), ("6.1.99", False), ("5.15", False), ("", False)])
def test_peer_to_peer_dma_needs_its_kernel(made: Made, release: str, *, will_do: bool) -> None:
    made.write("proc/sys/kernel/osrelease", release)
    assert (made.check(P2PDMA) == "") is will_do
    assert "neither nvidia-fs is loaded" in made.check()


def test_peer_to_peer_dma_may_be_asked_for_in_the_configuration(made: Made) -> None:
    made.write("cufile.json", '{\n // "use_pci_p2pdma": true,\n "properties": {"use_pci_p2pdma" : false}}')
    configured = CufileSettings(config=str(made.root / "cufile.json"))
    assert made.check(configured)
    made.write("cufile.json", '{ // ours\n "properties": {"use_pci_p2pdma" : true}, // yes\n}')
    assert made.check(configured) == ""


def test_the_environment_says_how_cufile_was_set_up() -> None:
    assert cufile_settings({}) == CufileSettings(config="/etc/cufile.json")
    found = cufile_settings({"CUFILE_ENV_PATH_JSON": "/a/b.json", "CUFILE_USE_PCIP2PDMA": "True"})
    assert found == CufileSettings(config="/a/b.json", uses_p2pdma=True)
    assert find_measurements({"HOME": "/h"}) == "/h/.cache/fastload"
    assert find_measurements({"HOME": "/h", "XDG_CACHE_HOME": "/x"}) == "/x/fastload"
    assert find_measurements({"XDG_CACHE_HOME": "relative"}) is None
    assert find_measurements({}) is None


def test_a_file_in_the_page_cache_is_faster_from_there(
    made: Made, shard: PlainFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.block_device(shard.identity.dev, "nvme0n1p1")
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(0xEF53))
    Path(shard.path).read_bytes()
    assert check_file(shard, allows_cached=False, root=str(made.root)) == "100% of it is in the page cache"
    assert check_file(shard, allows_cached=True, root=str(made.root)) == ""


@pytest.mark.parametrize(
    ("device", "slaves", "why"),
    [
        ("nvme0n1p2", (), ""),
        ("vda1", (), "ext4 lies on vda1, which is no NVMe disk"),
        ("md0", ("nvme0n1", "nvme1n1"), ""),
        ("dm-0", ("nvme0n1", "sdb"), "ext4 lies on sdb, which is no NVMe disk"),
    ],
)
def test_a_disk_must_be_nvme_all_of_it(
    made: Made, shard: PlainFile, device: str, slaves: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.block_device(shard.identity.dev, device, *slaves)
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(0xEF53))
    assert check_file(shard, allows_cached=True, root=str(made.root)) == why


@pytest.mark.parametrize(
    ("magic", "why"),
    [
        (0x0BD00BD0, ""),
        (0x9123683E, "cuFile reads btrfs through the host"),
        (0x794C7630, "cuFile reads overlayfs through the host"),
        (0x01021994, "cuFile reads tmpfs through the host"),
        (0x6969, "this NFS mount does not use RDMA"),
    ],
)
def test_file_systems(made: Made, shard: PlainFile, magic: int, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(magic))
    assert check_file(shard, allows_cached=True, root=str(made.root)) == why


def test_nfs_over_rdma_will_do(made: Made, shard: PlainFile, monkeypatch: pytest.MonkeyPatch) -> None:
    number = f"{os.major(shard.identity.dev)}:{os.minor(shard.identity.dev)}"
    line = f"36 35 {number} / /mnt rw,relatime shared:1 - nfs4 server:/ rw,vers=4.2,proto=rdma,port=20049"
    made.write("proc/self/mountinfo", f"21 1 0:20 / /sys rw - sysfs sysfs rw\n{line}\n")
    monkeypatch.setattr(kernel, "_libc", OnFileSystem(0x6969))
    assert check_file(shard, allows_cached=True, root=str(made.root)) == ""
