"""A disk whose power can be cut: a file system in a loop image, and the ioctl that stops it where it stands.

What is lost is what the file system had not yet given to its device. A device's own cache is not played: that a barrier
reaches the plate or the flash needs real hardware.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import struct
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from warming import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN: ``_IOR('X', 125, __u32)``."""
CUTS = {"right after the journal was written": 1, "before the journal is written": 2}
"""How the ioctl stops a file system: names may have reached the disk without what they name, or neither has."""
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
FILE_SYSTEMS = tuple(_MKFS)
_IMAGE_BYTES = {"ext4": 96 << 20, "xfs": 320 << 20}
"""Sparse. XFS has a least size of 300 MB."""


@dataclass(frozen=True)
class Disk:
    """A file system in an image, and the folder where it is mounted."""

    kind: str
    image: Path
    folder: Path

    @property
    def is_mounted(self) -> bool:
        """As the kernel lists it: XFS that was stopped answers no other question."""
        return f" {self.folder} " in Path("/proc/self/mounts").read_text()

    def make(self) -> None:
        """Empty, and mounted."""
        self.image.unlink(missing_ok=True)
        with self.image.open("wb") as file:
            file.truncate(_IMAGE_BYTES[self.kind])
        _run(*_MKFS[self.kind], str(self.image))
        self.mount()

    def mount(self) -> None:
        """The journal of one that was cut is played back."""
        self.folder.mkdir(exist_ok=True)
        _run("mount", "-t", self.kind, "-o", "loop", str(self.image), str(self.folder))
        if (self.folder / "lost+found").is_dir():
            (self.folder / "lost+found").rmdir()  # no folder of a model, the hub's tools would say

    def cut(self, how: int) -> None:
        """From here on nothing reaches the disk."""
        opened = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(opened, _SHUTDOWN, struct.pack("I", how))
        finally:
            os.close(opened)

    def unmount(self) -> None:
        """Whoever had files open there has ended.

        A process with a mount namespace of its own, as other tests start them, may have the mount too, and a file
        system that was stopped stays so until the last of them ends.
        """
        _run("umount", str(self.folder))
        eventually(lambda: not self._is_held())

    def _is_held(self) -> bool:
        backing = (Path(path) for path in glob.glob("/sys/block/loop*/loop/backing_file"))
        return any(_read(path) == str(self.image) for path in backing)


@contextmanager
def disk(kind: str, folder: Path, at: Path) -> Iterator[Disk]:
    """A disk with its image in ``folder``, mounted at ``at`` once it is made; taken away at the end."""
    made = Disk(kind, folder / f"{kind}.image", at)
    try:
        yield made
    finally:
        if made.is_mounted:
            made.unmount()
        made.image.unlink(missing_ok=True)


def why_none(kind: str) -> str | None:
    """Why there can be no such disk here."""
    if os.geteuid():
        return "a loop image is mounted by root alone"
    if shutil.which(_MKFS[kind][0]) is None:
        return f"{_MKFS[kind][0]} is not installed"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(kind, Path(folder), Path(folder) / "at") as made:
                made.make()
                made.cut(CUTS["before the journal is written"])
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no {kind} in a loop image that can be stopped: {getattr(error, 'stderr', None) or error}"
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # let go of meanwhile
        return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
