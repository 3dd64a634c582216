"""What a dry run says is what a run then does, whatever was left behind; and a dry run changes nothing."""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from caches import BLOB_BYTES, Cache, commit_of, content_of
from fastload._fetch.keep.snapshots import prune
from fastload._store.admit.area import StagingArea
from fastload._store.admit.takeover import open_staged
from fastload._store.filesystem import new_id
from fastload._store.keep import grave
from fastload._store.keep.pin import pin
from fastload._store.layout import BENCH_PREFIX, lease_folder
from fastload._verify.manifest import Manifest, ManifestFile, dump_manifest
from fastload.cli import prune as prune_verb
from fastload.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastload._store.admit.staged import StagedFile
    from fastload._store.layout import RepoLayout

SEEDS = range(8)
STORES = (*range(60), 207, 243, 305)
"""The last ones have manifests that name blobs to which no link leads, and which go with a leftover."""
TWO_DAYS_S = 48 * 3600.0


def _name(seed: int) -> str:
    return hashlib.sha256(content_of(seed)).hexdigest()


def _list(root: Path) -> list[tuple[str, int, int, bytes]]:
    """All that is below ``root``, with when it was last written."""
    found = []
    for above, folders, names in os.walk(root):
        for path in (os.path.join(above, name) for name in (*folders, *names)):
            status = os.lstat(path)
            content = b""
            if os.path.islink(path):
                content = os.fsencode(os.readlink(path))
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            found.append((path, status.st_mode, status.st_mtime_ns, content))
    return sorted(found)


class Store:
    """A tier with snapshots and leftovers of all kinds, as ``chance`` has it."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        """Made by :meth:`fill`."""
        self.cache = Cache(root)
        self.chance = chance
        self._living: list[StagedFile] = []
        self._held: list[int] = []

    def fill(self) -> None:
        """Two or three repos."""
        for repo in ("org/a", "org/b", "org/c")[: self.chance.randint(1, 3)]:
            self._fill_repo(repo)
        for _ in range(self.chance.randint(0, 2)):
            made = os.path.join(lease_folder(str(self.cache.root)), f"{BENCH_PREFIX}{new_id()}")
            _write(os.path.join(made, "model.safetensors"), bytes(BLOB_BYTES))
            self._age(made)

    def _fill_repo(self, repo: str) -> None:
        layout = self.cache.layout(repo)
        for number in range(1, self.chance.randint(2, 5)):
            self._add_snapshot(repo, number)
        makers = (self._break_off, self._stage, self._leave_loose, self._behead, self._leave_blob, self._lose_link)
        for _ in range(self.chance.randint(0, 7)):
            self.chance.choice(makers)(repo, layout)

    def _add_snapshot(self, repo: str, number: int) -> None:
        files = {f"f{seed}": seed for seed in self.chance.sample(SEEDS, self.chance.randint(1, 3))}
        commit = self.cache.add(
            repo,
            number,
            files,
            source=self.chance.choice(["hub", "hub", "hub", None]),
            ref=self.chance.choice(["main", None]),
            used_s_ago=self.chance.choice([60, 5000, 7000, 9000]) + number,
        )
        if not self.chance.randrange(6):
            pin(self.cache.layout(repo), commit)

    def _break_off(self, repo: str, layout: RepoLayout) -> None:
        """A removal, at any of its steps: folder in the grave or not, manifest or not, some blobs, one needed again."""
        commit = commit_of(self.chance.randint(1, 6))
        with grave.dig(layout, commit) as dug:
            if os.path.isdir(layout.snapshot(commit)) and self.chance.randrange(3):
                os.rename(layout.snapshot(commit), dug.snapshot)
                if os.path.exists(layout.manifest(commit)) and self.chance.randrange(2):
                    os.rename(layout.manifest(commit), dug.manifest)
            for name in self.chance.sample(sorted(self.cache.blobs(repo)), min(2, len(self.cache.blobs(repo)))):
                shutil.copyfile(layout.blob(name), os.path.join(dug.blobs, name))
                if self.chance.randrange(2):
                    os.unlink(layout.blob(name))
            if not self.chance.randrange(4):
                self._held.append(os.dup(dug.lock))
            if not self.chance.randrange(6):
                shutil.rmtree(dug.blobs)
                os.symlink(self.cache.root, dug.blobs)

    def _stage(self, repo: str, layout: RepoLayout) -> None:
        area = StagingArea(layout.ours())
        area.make()
        staged = open_staged(area, self.chance.choice([_name(self.chance.choice(SEEDS)), "ab" * 32]), BLOB_BYTES)
        staged.put(0, memoryview(content_of(7)))
        if self.chance.randrange(3):
            staged.close()
        else:
            self._living.append(staged)
        for name in os.listdir(area.journals):
            if not self.chance.randrange(3):
                self._age(area.part(name))
                self._age(area.journal(name))
            if not self.chance.randrange(6):
                _write(area.journal(name), b"garbled")

    def _leave_loose(self, repo: str, layout: RepoLayout) -> None:
        path = layout.ours("staging", self.chance.choice(["main", commit_of(1), "hub", "removed.x"]) + f".{new_id()}")
        if self.chance.randrange(2):
            _write(path, bytes(BLOB_BYTES))
        elif self.chance.randrange(2):
            _write(os.path.join(path, "files", "x"), bytes(BLOB_BYTES))
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(self.cache.root, path)
        self._age(path)

    def _behead(self, repo: str, layout: RepoLayout) -> None:
        """A manifest without its snapshot, with blobs of its own and of others."""
        commit = commit_of(self.chance.randint(10, 12))
        names = {f"f{seed}": seed for seed in self.chance.sample(range(10), 3)}
        for seed in names.values():
            if self.chance.randrange(2):
                _write(layout.blob(_name(seed)), content_of(seed))
        files = tuple(
            ManifestFile(path, BLOB_BYTES, _name(seed), None, ("cd" * 32,)) for path, seed in sorted(names.items())
        )
        _write(layout.manifest(commit), dump_manifest(Manifest(repo, commit, "hub", files)))

    def _leave_blob(self, repo: str, layout: RepoLayout) -> None:
        seed = self.chance.choice(SEEDS)
        suffix = self.chance.choice(["", f".{new_id()[:8]}.incomplete"])
        _write(layout.blob(_name(seed) + suffix), content_of(seed))

    def _lose_link(self, repo: str, layout: RepoLayout) -> None:
        """A file that the manifest names, and that somebody has taken out of the snapshot."""
        links = [os.path.join(above, name) for above, _, names in os.walk(layout.snapshots) for name in names]
        if links:
            os.unlink(self.chance.choice(sorted(links)))

    def _age(self, path: str) -> None:
        then_s = time.time() - self.chance.choice([0, TWO_DAYS_S])
        if os.path.lexists(path):
            os.utime(path, (then_s, then_s), follow_symlinks=False)

    def close(self) -> None:
        """Those who live end."""
        for descriptor in self._held:
            os.close(descriptor)
        for staged in self._living:
            staged.close()


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[Callable[[int], Store]]:
    """Gives the store of a seed."""
    made: list[Store] = []

    def make(seed: int) -> Store:
        store = Store(tmp_path / "hub", random.Random(seed))  # noqa: S311 - the same stores each time
        made.append(store)
        store.fill()
        return store

    yield make
    for store in made:
        store.close()


@pytest.mark.parametrize("seed", STORES)
def test_what_a_dry_run_says_is_what_a_run_does(make_store: Callable[[int], Store], seed: int) -> None:
    """Down to sizes that are ever smaller, so that what one run has left is there for the next."""
    store = make_store(seed)
    options = Options(local=str(store.cache.root))
    kept_bytes = prune(dry_run=True, options=options).kept_bytes
    for limit in (None, kept_bytes - 1, kept_bytes // 2, 0):
        limit_bytes = None if limit is None else max(0, limit)
        before = _list(store.cache.root)
        planned = prune(max_bytes=limit_bytes, dry_run=True, options=options)
        assert _list(store.cache.root) == before
        if seed % 2 and limit is None:
            continue  # leftovers and snapshots go in one run
        assert prune(max_bytes=limit_bytes, options=options) == planned, limit


def test_a_dry_run_says_what_leftovers_would_free(
    make_store: Callable[[int], Store], capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(1)
    root = str(store.cache.root)
    layout = store.cache.layout("org/a")
    with grave.dig(layout, commit_of(9)) as dug:
        _write(os.path.join(dug.blobs, _name(99)), bytes(BLOB_BYTES))
    for words in (["--dry-run"], []):
        parser = argparse.ArgumentParser()
        prune_verb.add_arguments(parser)
        parser.add_argument("--json", action="store_true", dest="as_json")
        prune_verb.run(parser.parse_args([*words, "--local", root]))
    would, did = capsys.readouterr().out.splitlines()
    assert would.replace("would be reclaimed", "reclaimed").replace("would keep", "keeps") == did
    assert "of leftovers would be reclaimed" in would
    assert not would.startswith("0 B") and not os.path.exists(dug.path)
