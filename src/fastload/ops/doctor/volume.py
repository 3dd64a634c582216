"""What a tier's folder is like: asked of the mount, so on a thread that may be left behind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.find.local import NOWHERE
from fastload._store.ownership import cure_folder
from fastload.ops.doctor.finding import FATAL, NOTE, WARNING, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._settings.values import Share

_FEW_INODES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The folder of a tier, and the file system below it."""

    path: str
    exists: bool
    real_path: str
    """With its links followed, as the mounts are named; of what does not exist, the nearest folder above."""
    is_writable: bool
    """By this user: the folder, or where it is to be made."""
    is_read_only: bool
    """The mount, for everybody."""
    owner: str
    """As ``uid:gid mode``."""
    total_bytes: int
    free_bytes: int
    """For this user, without what is reserved for root."""
    free_inodes: int | None
    """None where the file system has no fixed number."""


def look_at(path: str) -> Volume:
    """Ask the file system.

    Raises:
        OSError: it cannot be asked.
    """
    there = path
    while not os.path.exists(there) and there != "/":
        there = os.path.dirname(there)
    space, status = os.statvfs(there), os.stat(there)
    return Volume(
        path=path,
        exists=there == path,
        real_path=os.path.realpath(there),
        is_writable=os.access(there, os.W_OK | os.X_OK) and not space.f_flag & os.ST_RDONLY,
        is_read_only=bool(space.f_flag & os.ST_RDONLY),
        owner=f"{status.st_uid}:{status.st_gid} {status.st_mode & 0o7777:04o}",
        total_bytes=space.f_blocks * space.f_frsize,
        free_bytes=space.f_bavail * space.f_frsize,
        free_inodes=space.f_favail if space.f_files else None,
    )


def describe_no_local() -> Finding:
    """Nobody said where it is, and there is no home where it could be."""
    return Finding(
        severity=WARNING,
        what=NOWHERE,
        why="shared tiers and paths serve; nothing can be brought, kept or pinned: warm ends with 2",
        cure="export FASTLOAD_LOCAL=/a/folder/that/this/user/may/write, or HOME",
    )


def judge_local(volume: Volume, min_free: Share) -> Iterator[Finding]:
    """Whether models can be brought to the local tier."""
    if volume.is_read_only:
        yield Finding(
            severity=NOTE,
            what=f"{volume.path} is mounted read-only",
            why="what is there serves, as in a pod that only loads; nothing can be brought, mended or evicted here",
            cure=f"nothing, if somebody else warms it; else mount -o remount,rw {volume.real_path}; in Kubernetes: "
            "volumeMounts: readOnly: false",
        )
    elif not volume.is_writable:
        uid, gid = os.geteuid(), os.getegid()
        yield Finding(
            severity=WARNING,
            what=f"{volume.path} cannot be written by uid {uid}, gid {gid} (it belongs to {volume.owner})",
            why="what is there serves; nothing can be brought, mended or evicted: warm ends with 15",
            cure=cure_folder(volume.real_path if volume.exists else volume.path),
        )
    wanted_bytes = min_free.of(volume.total_bytes)
    if volume.is_writable and volume.free_bytes < wanted_bytes:
        yield Finding(
            severity=WARNING,
            what=f"{volume.free_bytes:,} bytes are free at {volume.path}, and min_free keeps {wanted_bytes:,}",
            why="warm has to evict before it brings anything, and ends with 14 where that is not enough",
            cure="fastload ls; fastload prune --max-bytes SIZE; or a larger volume",
        )
    if volume.is_writable and volume.free_inodes is not None and volume.free_inodes < _FEW_INODES:
        yield Finding(
            severity=WARNING,
            what=f"{volume.free_inodes} inodes are free at {volume.path}",
            why="a snapshot needs a file and a link for each file of the model",
            cure=f"df -i {volume.real_path}; remove what has many small files",
        )


def judge_shared(volume: Volume) -> Iterator[Finding]:
    """Whether there is anything to read."""
    if not volume.exists:
        yield Finding(
            severity=WARNING,
            what=f"there is no folder {volume.path}",
            why="a shared tier that is not mounted has no model, and is passed over without a word",
            cure=f"mount it, or take it out of FASTLOAD_SHARED; in Kubernetes: kubectl describe pod (volumeMounts: "
            f"mountPath: {volume.path})",
        )


def describe_silent(label: str, path: str, reason: str, *, is_local: bool) -> Finding:
    """A tier that did not answer, or refused to."""
    return Finding(
        severity=FATAL if is_local else WARNING,
        what=f"the tier {label} could not be looked at: {reason}",
        why="a load asks it first, and waits"
        if is_local
        else "each look for a name waits up to five seconds for it, and finds nothing there",
        cure=f"ls {path}; dmesg | tail. A dead NFS mount: umount -f -l {path}, then mount again; or take it out of "
        "the settings",
    )
