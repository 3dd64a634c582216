"""Blocks that storage cannot give (EIO): they come from the next tier, as wrong ones do."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3

import fuse_mount
import preload
from forked import start_python, wait_for
from models import MIB
from proven_models import READERS, REPO, Model

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

SECTOR = range(5 * MIB - 8192, 5 * MIB - 4096)
"""In the second block of each shard, which is its last."""
SHARDS = 2

SHIM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* A bad sector below a folder: whatever is read of it, by whatever name and flags, is EIO. */
static int is_bad(int fd, size_t count, off_t offset) {
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0 || !strstr(path, "/local/") || !strstr(path, "/blobs/")) return 0;
    return offset < @END && offset + (off_t)count > @BEGIN;
}

static ssize_t at(int fd, const struct iovec *parts, int count, off_t offset) {
    size_t wanted = 0;
    for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
    if (is_bad(fd, wanted, offset)) { errno = EIO; return -1; }
    return syscall(SYS_preadv2, fd, parts, (long)count, offset, 0L, 0);
}
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t offset) { return at(fd, parts, count, offset); }
ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t offset) { return at(fd, parts, count, offset); }
ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{ return at(fd, parts, count, offset); }
ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{ return at(fd, parts, count, offset); }
"""


@pytest.fixture
def worn(model: Model) -> Iterator[Model]:
    """The model with a manifest on a local tier whose disk has a bad sector in each file, and is read-only."""
    if reason := fuse_mount.why_none():
        pytest.skip(reason)
    model.warmed()
    shown = model.local.rename(model.local.with_name("shown"))
    with fuse_mount.fuse_mount(shown, model.local, fuse_mount.Fault(0, errno.EIO, SECTOR)):
        yield model


LOAD = """
import json, sys, blake3, fastload
loaded = fastload.load(sys.argv[1])
digests = {name: blake3.blake3(bytes(tensor.numpy())).hexdigest() for name, tensor in loaded.items()}
print(json.dumps({"report": loaded.report.to_dict(), "digests": digests}))
"""


def run(model: Model, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: SIGBUS may end it, and it may not hold up the thread that answers for the mount."""
    tiers = {"FASTLOAD_LOCAL": str(model.local), "FASTLOAD_SHARED": str(model.shared)}
    environment = {**os.environ, **tiers, "FASTLOAD_TIERS": "local,shared", **environ}
    return wait_for(start_python(words, environment, torch=True), timeout=60)


def load(model: Model, reader: str, **environ: str) -> dict[str, Any]:
    """The report of a load, whose tensors are right."""
    done = run(model, "-c", LOAD, REPO, FASTLOAD_READER=reader, **environ)
    assert done.returncode == 0, (done.returncode, done.stderr)
    told = json.loads(done.stdout)
    assert told["digests"] == {
        name: blake3(bytes(tensor.numpy())).hexdigest() for name, tensor in model.tensors.items()
    }
    report = told["report"]
    assert isinstance(report, dict)
    return report


@pytest.mark.parametrize("reader", READERS)
def test_what_cannot_be_read_comes_from_the_next_tier(worn: Model, reader: str) -> None:
    report = load(worn, reader)
    assert (report["tier"], report["evidence"], report["blocks_repaired"]) == ("local", "manifest", SHARDS)
    assert report["blocks_verified"] == SHARDS * 2
    assert report["bytes_by_tier"][f"shared:{worn.shared}"] <= SHARDS * 2 * MIB, "the last block of each, not the first"


@pytest.mark.parametrize(
    ("reader", "less"),
    [
        ("direct", {"FASTLOAD_TIERS": "local"}),
        ("mmap", {"FASTLOAD_TIERS": "local"}),
        ("buffered", {"FASTLOAD_VERIFY": "off"}),
    ],
)
def test_without_a_better_source_or_evidence_the_error_is_what_the_disk_said(
    worn: Model, reader: str, less: dict[str, str]
) -> None:
    done = run(worn, "-m", "fastload", "load", REPO, FASTLOAD_READER=reader, **less)
    assert done.returncode == 15, (done.returncode, done.stderr)
    assert "model-0000" in done.stderr and "cannot be read (Input/output error)" in done.stderr


@pytest.mark.skipif(preload.why_none() is not None, reason="needs a compiler for what stands before the C library")
@pytest.mark.parametrize(
    ("reader", "sector", "repaired"),
    [("direct", SECTOR, SHARDS), ("buffered", range(4096), SHARDS + 1)],
    ids=["end", "begin"],
)
def test_the_stored_copy_is_replaced(model: Model, tmp_path: Path, reader: str, sector: range, repaired: int) -> None:
    """In the beginning it is in the index too, and in the blocks with headers, asked for twice, which come once."""
    folder = model.warmed()
    inodes = {path.name: path.resolve().stat().st_ino for path in folder.iterdir()}
    source = SHIM.replace("@BEGIN", str(sector.start)).replace("@END", str(sector.stop))
    report = load(model, reader, LD_PRELOAD=str(preload.build_library(tmp_path, source)))
    assert (report["tier"], report["blocks_repaired"]) == ("local", repaired)
    for name, inode in inodes.items():
        path = folder / name
        assert path.read_bytes() == model.files[name]
        is_bad = name != "config.json" and len(model.files[name]) > sector.start
        assert (path.resolve().stat().st_ino != inode) == is_bad, name
    assert not os.listdir(folder.parent.parent / ".fastload/staging")
