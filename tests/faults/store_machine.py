"""The store against a model of it: a set of snapshots, what is wrong with their blobs, who reads them, what is pinned.

Two commits of one repo share a shard, so that removing, damaging and mending one touches the other.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import scan_cache_dir
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import fastload
from fastload._store.keep.evict import evict
from fastload._store.keep.reclaim import reclaim_leftovers
from models import same_bytes
from stored_models import blob_name, write_cache
from warming import content
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastload._load.stream.stream import Stream

_TENSOR_BYTES = 3000
_STEPS = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "open"})
_ALL = 1 << 40


def _shard(seed: int) -> bytes:
    return pack({f"t{seed}": ("U8", [_TENSOR_BYTES], bytes((seed * 7 + n) % 256 for n in range(_TENSOR_BYTES)))})


def _files(first: int, second: int) -> dict[str, bytes]:
    return {
        "model-00001-of-00002.safetensors": _shard(first),
        "model-00002-of-00002.safetensors": _shard(second),
        "config.json": b'{"seed": %d}' % second,
    }


MODELS: dict[tuple[str, str], dict[str, bytes]] = {
    ("org/a", "a" * 40): _files(1, 2),
    ("org/a", "b" * 40): _files(1, 3),
    ("org/b", "c" * 40): _files(4, 5),
}
_WHICH = st.sampled_from(sorted(MODELS))
_SHARD = st.sampled_from(["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
Snapshot = tuple[str, str]


def _blobs(which: Snapshot) -> set[tuple[str, str]]:
    return {(which[0], blob_name(name, raw)) for name, raw in MODELS[which].items()}


class StoreMachine(RuleBasedStateMachine):
    """What fastload and others do to a local tier, one after another."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.local, self.shared = (Path(self._folder.name) / name for name in ("local", "shared"))
        for (repo, commit), files in MODELS.items():
            write_cache(self.shared, repo, commit, files)
        self.present: set[Snapshot] = set()
        self.pinned: set[Snapshot] = set()
        self.damaged: set[tuple[str, str]] = set()
        self.found: set[tuple[Snapshot, tuple[str, str]]] = set()
        """What a load has found damaged, and could not mend."""
        self.reading: dict[Snapshot, Stream] = {}

    def teardown(self) -> None:
        for stream in self.reading.values():
            stream.close()
        self._folder.cleanup()

    def _options(self, *tiers: str) -> fastload.Options:
        shared = str(self.shared) if "shared" in tiers else None
        return fastload.Options(local=str(self.local), shared=shared, tiers=tiers, write_through="off")

    def _blob(self, repo: str, name: str) -> Path:
        return self.local / f"models--{repo.replace('/', '--')}" / "blobs" / name

    def _mend(self, blobs: set[tuple[str, str]]) -> None:
        self.damaged -= blobs
        self.found = {(which, blob) for which, blob in self.found if blob not in blobs}

    @initialize(there=st.lists(_WHICH, unique=True, min_size=1))
    def begin(self, there: list[Snapshot]) -> None:
        """With something there: most of what can go wrong needs that."""
        for which in there:
            self.warm(which)

    @rule(which=_WHICH)
    def warm(self, which: Snapshot) -> None:
        """Brought, unless it is there; and mended, where it is known to be damaged."""
        fastload.warm(_spell(which), options=self._options("local", "shared"))
        if which not in self.present or any(known == which for known, _ in self.found):
            self._mend(_blobs(which))
        self.present.add(which)

    @rule(which=_WHICH)
    def load(self, which: Snapshot) -> None:
        """Right, whatever is damaged; and that is mended."""
        loaded = fastload.load(_spell(which), options=self._options("local", "shared"))
        _check_tensors(loaded, which)
        if which in self.present:
            self._mend({blob for blob in _blobs(which) if blob[1] != blob_name("config.json", _config(which))})

    @rule(which=_WHICH)
    def load_where_nothing_mends(self, which: Snapshot) -> None:
        """Right, or the error that it must be."""
        bad = self.damaged & _blobs(which)
        try:
            loaded = fastload.load(_spell(which), options=self._options("local"))
        except fastload.ModelNotFoundError:
            assert which not in self.present
        except fastload.IntegrityError:
            assert which in self.present
            assert bad
            self.found |= {(which, blob) for blob in bad}
        else:
            assert which in self.present
            assert not bad
            _check_tensors(loaded, which)

    @rule(which=_WHICH)
    def repair(self, which: Snapshot) -> None:
        """All that is stored is right afterwards."""
        if which in self.present:
            fastload.verify(_spell(which), repair=True, options=self._options("local", "shared"))
            self._mend(_blobs(which))

    @rule(which=_WHICH, shard=_SHARD, at=st.integers(0, 2999))
    def corrupt(self, which: Snapshot, shard: str, at: int) -> None:
        """One byte of a tensor flips on the disk."""
        blob = which[0], blob_name(shard, MODELS[which][shard])
        if which not in self.present or blob in self.damaged:
            return
        path = self._blob(*blob)
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(at - 3000, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        self._mend({blob})  # what was known of it, was of another file
        self.damaged.add(blob)

    @rule(which=_WHICH)
    def pin(self, which: Snapshot) -> None:
        """Only what is there can be."""
        try:
            fastload.pin(_spell(which), options=self._options("local"))
        except fastload.ModelNotFoundError:
            assert which not in self.present
        else:
            assert which in self.present
            self.pinned.add(which)

    @rule(which=_WHICH)
    def unpin(self, which: Snapshot) -> None:
        """The reverse."""
        with suppress(fastload.ModelNotFoundError):
            fastload.unpin(_spell(which), options=self._options("local"))
        self.pinned.discard(which)

    @rule(which=_WHICH)
    def remove(self, which: Snapshot) -> None:
        """Neither what is pinned nor what is read."""
        try:
            fastload.remove(_spell(which), options=self._options("local"))
        except fastload.ModelNotFoundError:
            assert which not in self.present
        except fastload.UsageError:
            assert which in self.pinned or which in self.reading
        else:
            assert which in self.present - self.pinned - set(self.reading)
            self._lose({which})

    @rule()
    def evict(self) -> None:
        """All that may go goes."""
        gone = {(kept.repo, kept.commit) for kept in evict(str(self.local), _ALL, idle_s=0.0)}
        assert gone == self.present - self.pinned - set(self.reading) or gone < self.present - self.pinned
        self._lose(gone)

    @rule(which=_WHICH)
    def hf_cache_rm(self, which: Snapshot) -> None:
        """Another tool takes it away and knows nothing of us."""
        if which not in self.present - self.pinned - set(self.reading):
            return
        scan_cache_dir(self.local).delete_revisions(which[1]).execute()
        self._lose({which})

    @rule(which=_WHICH)
    def begin_reading(self, which: Snapshot) -> None:
        """A stream that is held open."""
        if which in self.present and not self.damaged & _blobs(which) and which not in self.reading:
            self.reading[which] = fastload.stream(_spell(which), options=self._options("local"))

    @rule()
    def end_reading(self) -> None:
        """All streams are read to their ends, and are right."""
        for which, stream in self.reading.items():
            with stream, suppress(fastload.IntegrityError):  # damaged, or replaced by a mended one, since it was opened
                _check_tensors(dict(stream), which)
        self.reading.clear()

    @rule(which=_WHICH, step=st.integers(0, 60))
    def crash(self, which: Snapshot, step: int) -> None:
        """A warm is killed before its n-th step on the file system; what is there then is whole, or is not there."""
        self._die(step, lambda: fastload.warm(_spell(which), options=self._options("local", "shared")))
        if which not in self.present and (self._blob(which[0], "").parent / "snapshots" / which[1]).exists():
            self._mend(_blobs(which))
            self.present.add(which)
        # Blobs are replaced one by one; those that still are damaged are what the next look says.
        self._mend({blob for blob in self.damaged if not self._is_damaged(blob)})

    @rule(which=_WHICH, step=st.integers(0, 50))
    def crash_removing(self, which: Snapshot, step: int) -> None:
        """A removal is killed before its n-th step; what it has begun with is gone, and in nobody's way."""
        self._die(step, lambda: fastload.remove(_spell(which), options=self._options("local")))
        if which in self.present and not (self._blob(which[0], "").parent / "snapshots" / which[1]).exists():
            self._lose({which})

    def _die(self, step: int, work: Callable[[], object]) -> None:
        """``work``, in a child that is killed before its ``step``-th step, or comes to an end."""
        child = os.fork()
        if not child:
            left = [step]

            def count_down(event: str, _: object) -> None:
                if event in _STEPS:
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1

            sys.addaudithook(count_down)
            try:
                work()
            finally:
                os._exit(0)
        os.waitpid(child, 0)

    def _is_damaged(self, blob: tuple[str, str]) -> bool:
        path = self._blob(*blob)
        known = {blob_name(name, raw): raw for files in MODELS.values() for name, raw in files.items()}
        return path.exists() and path.read_bytes() != known[blob[1]]

    def _lose(self, gone: set[Snapshot]) -> None:
        self.present -= gone
        needed = {blob for which in self.present for blob in _blobs(which)}
        self.damaged &= needed
        self.found = {(which, blob) for which, blob in self.found if which in self.present}

    @invariant()
    def what_is_there_is_what_the_model_says(self) -> None:
        """The hub's tools find no fault, fastload finds all of them, and all are whole but for what was broken."""
        if not self.local.exists():
            return
        info = scan_cache_dir(self.local)
        assert info.warnings == []
        there = {
            (repo.repo_id, revision.commit_hash) for repo in info.repos for revision in repo.revisions if revision.files
        }
        assert there == self.present
        for which in self.present:
            snapshot = fastload.resolve(_spell(which), options=self._options("local"))
            found = content(Path(snapshot.path))
            bad = {name for name, raw in MODELS[which].items() if found.get(name) != raw}
            assert {(which[0], blob_name(name, MODELS[which][name])) for name in bad} == self.damaged & _blobs(which)

    @rule()
    def reclaim(self) -> None:
        """Leftovers go, and nothing else."""
        if self.local.exists():
            reclaim_leftovers(str(self.local))


def _config(which: Snapshot) -> bytes:
    return MODELS[which]["config.json"]


def _spell(which: Snapshot) -> str:
    return f"{which[0]}@{which[1]}"


def _check_tensors(loaded: Mapping[str, torch.Tensor], which: Snapshot) -> None:
    expected = {
        f"t{n}": torch.tensor([(n * 7 + i) % 256 for i in range(_TENSOR_BYTES)], dtype=torch.uint8)
        for n in _SEEDS[which]
    }
    assert loaded.keys() == expected.keys()
    assert all(same_bytes(loaded[name], expected[name]) for name in expected)


_SEEDS = {("org/a", "a" * 40): (1, 2), ("org/a", "b" * 40): (1, 3), ("org/b", "c" * 40): (4, 5)}
