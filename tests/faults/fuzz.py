"""Hostile input at every door: headers, indexes, manifests, signatures, listings, a hub's answers, settings.

Each door is a valid input and what is done with it. The fuzzer spoils the input, does it, and lets nothing pass but
success and errors of ours. What a success delivers is proven elsewhere (the tests of the formats, by oracles).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload._store.admit.journal import dump_head, dump_line, dump_proven
from fastload._store.keep.reclaim import reclaim_leftovers
from fastload.errors import FastloadError
from fastload.options import decide_settings
from hub_faults import Body
from hub_server import HubServer, Repo
from results import Row
from signing import bundle_of, key_of, pem_of, resource, statement_of
from stored_models import COMMIT, model_files, write_cache, write_folder, write_tree
from writing import INDEX_NAME, one_tensor, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_TOKENS = (
    b"\0", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"/../", b"/etc/passwd", b"null", b"true", b"NaN", b"1e999",
    b"-1", b"9" * 5000, b"18446744073709551616", b"[" * 2000, b'{"a":' * 500, b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800",
    b"..", b"\x1b[2J", b"\n", b"%00", b'""', b"0", b"='", b"\xef\xbb\xbf",
    b"[" * 4000, b"0x" + b"f" * 5000, b"\\u0000", b"~\\u0000x", b"99999999d",
)  # fmt: skip
_SETTINGS = ("0x" + "f" * 5000, "[0x" + "f" * 5000 + "]", '"~\\u0000x"', '"999999999d"')
_WORD = re.compile(rb"[\w.-]+")


def spoil(raw: bytes, rng: random.Random) -> bytes:
    """One to four changes."""
    spoiled = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at, end = _choose_place(bytes(spoiled), rng)
        token = rng.choice(_TOKENS)
        spoiled[at:end] = rng.choice(
            (token, token + spoiled[at:end], b"", spoiled[at:end] * 3, bytes(byte ^ 1 for byte in spoiled[at:end]))
        )
        if rng.random() < 0.05:
            del spoiled[at:]
    return bytes(spoiled)


def _choose_place(raw: bytes, rng: random.Random) -> tuple[int, int]:
    """A word, so that what holds it stays well-formed; or any place."""
    words = list(_WORD.finditer(raw)) if rng.random() < 0.5 else []
    if words:
        return rng.choice(words).span()
    at = rng.randrange(len(raw) + 1)
    return at, min(len(raw), at + rng.choice((1, 1, 2, 8, 64)))


@dataclass(frozen=True)
class Door:
    """Where something from outside comes in."""

    what: str
    valid: bytes
    enter: Callable[[bytes], object]
    """Puts an input in its place and does what reads it."""
    corpus: tuple[bytes, ...] = ()
    """Inputs that come first: those that chance would hardly find."""


def _file_door(what: str, path: Path, act: Callable[[], object], *corpus: bytes) -> Door:
    def enter(spoiled: bytes) -> None:
        path.write_bytes(spoiled)
        act()

    return Door(what, path.read_bytes(), enter, (*_TOKENS, *corpus))


def doors(folder: Path) -> Iterator[Door]:
    """All of them, each with files of its own below ``folder``."""
    files = model_files()
    header = write_folder(folder / "header", {"model.safetensors": files["model-00001-of-00002.safetensors"]})
    yield _file_door("header", header / "model.safetensors", lambda: fastload.inspect(header))
    index = write_folder(folder / "index", files)
    yield _file_door("index", index / INDEX_NAME, lambda: fastload.load(index))
    castable = {"model.safetensors": pack({"a": ("F32", [4], bytes(16))}), "config.json": b'{"a": {"b": [1, "c"]}}'}
    config = write_folder(folder / "config", castable)
    yield _file_door("config.json", config / "config.json", lambda: fastload.load(config, dtype="BF16"))
    yield _manifest_door(write_folder(folder / "manifest", files))
    yield from _signature_doors(write_folder(folder / "signed", {"model.safetensors": one_tensor()}))
    yield from _cache_doors(folder / "hub", files)
    yield from _own_doors(folder / "own")
    yield _settings_door(folder)


def _manifest_door(folder: Path) -> Door:
    fastload.verify(folder, record=True)
    (path,) = (folder / ".fastload/manifests").iterdir()
    return _file_door("manifest", path, lambda: fastload.load(folder))


def _signature_doors(folder: Path) -> Iterator[Door]:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    statement = json.dumps(statement_of([resource("model.safetensors", digest=digest)])).encode()
    signature, key = folder / "model.sig", folder.parent / "key.pem"
    signature.write_bytes(bundle_of(statement))
    key.write_bytes(pem_of(key_of()))

    def load() -> object:
        return fastload.load(folder, options=fastload.Options(signature_key=str(key)))

    def sign(spoiled: bytes) -> None:
        signature.write_bytes(bundle_of(spoiled))
        load()

    yield _file_door("signature bundle", signature, load)
    yield Door("signed statement", statement, sign)
    signature.write_bytes(bundle_of(statement))
    yield _file_door("public key", key, load)


def _cache_doors(root: Path, files: Mapping[str, bytes]) -> Iterator[Door]:
    snapshot = write_cache(root, "org/name", COMMIT, files)
    write_tree(snapshot, files)
    repo = snapshot.parent.parent
    options = fastload.Options(local=str(root), tiers=("local",))

    def load() -> object:
        return fastload.load("org/name", options=options)

    yield _file_door("the hub client's listing", repo / "trees" / f"{COMMIT}.json", load)
    yield _file_door("ref", repo / "refs/main", load)


def _own_doors(folder: Path) -> Iterator[Door]:
    """What fastload itself keeps on a tier, where others may write too."""
    content = one_tensor()
    write_cache(folder / "mount", "org/name", COMMIT, {"model.safetensors": content})
    local = folder / "local"
    options = fastload.Options(local=str(local), shared=str(folder / "mount"), tiers=("local", "shared"))
    fastload.load("org/name", options=replace(options, write_through="on"))
    ours = local / "models--org--name/.fastload"

    def look() -> None:
        fastload.snapshots(options=options)
        fastload.warm("org/name", options=options)
        fastload.load("org/name", options=options)

    (ours / "marks").mkdir(exist_ok=True)
    (ours / "marks" / f"{COMMIT}.json").write_text('{"schema": 1, "files": {"model.safetensors": [1, 2, 3]}}')
    for what in ("marks", "stamps", "reports"):
        (path,) = (ours / what).iterdir()
        yield _file_door(
            f"what fastload keeps: {what}", path, look, b'{"schema":1,"files":{"a\\u0000b":[1,2,3],"x":null}}'
        )
    yield _journal_door(local, hashlib.sha256(content).hexdigest(), look)


def _journal_door(local: Path, key: str, look: Callable[[], None]) -> Door:
    repo = local / "models--org--name"

    def enter(spoiled: bytes) -> None:
        shutil.rmtree(repo)
        for where, content in (("journals", spoiled), ("staging", b"x")):
            (repo / ".fastload" / where).mkdir(parents=True)
            (repo / ".fastload" / where / f"{key}.0123456789abcdef").write_bytes(content)
        (repo / "snapshots").mkdir()
        reclaim_leftovers(str(local))
        look()

    return Door(
        "what fastload keeps: journals",
        dump_head(1, 1) + dump_line(0, "a" * 64) + dump_proven(["a" * 64]),
        enter,
        _TOKENS,
    )


def _settings_door(folder: Path) -> Door:
    path = folder / "config.toml"
    path.write_text(
        'verify = "auto"\nstaging_bytes = "64Mi"\nmin_free = "5%"\ndeadline = "90s"\nlocal = "~/hub"\n'
        'shared = ["/mnt"]\ntiers = ["local"]\nrequire_pinned = false\n[aliases]\nx = ["org/name", "y"]\n'
    )
    corpus = [f"{field.name} = {value}".encode() for field in fields(fastload.Options) for value in _SETTINGS]
    return _file_door("settings", path, lambda: decide_settings(None, {}, {"FASTLOAD_CONFIG": str(path)}), *corpus)


@contextmanager
def hub_doors(folder: Path) -> Iterator[list[Door]]:
    """What a hub answers: about a revision, its tree, and where a file is."""
    with HubServer({"org/name": Repo(model_files())}) as hub:
        commit = hub.repos["org/name"].commit
        revision = json.dumps({"id": "org/name", "sha": commit, "siblings": []}).encode()
        tree = json.dumps(hub.repos["org/name"].tree(commit)).encode()
        yield [
            _hub_door(hub, folder, "a hub's answer about a revision", "*/revision/*", revision),
            _hub_door(hub, folder, "a hub's tree", "*/tree/*", tree),
        ]


def _hub_door(hub: HubServer, folder: Path, what: str, path: str, valid: bytes) -> Door:
    numbers = itertools.count()

    def enter(spoiled: bytes) -> None:
        hub.faults.clear()
        hub.faults.add(Body(spoiled), path=path, times=None)
        local = folder / f"{len(what)}-{next(numbers)}"
        options = fastload.Options(local=str(local), tiers=("local", "hub"), deadline=1)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("HF_ENDPOINT", hub.url)
                fastload.warm("org/name", options=options)
        finally:
            shutil.rmtree(local, ignore_errors=True)

    return Door(what, valid, enter)


def fuzz(door: Door, count: int, seed: int = 9) -> Row:
    """The corpus, then ``count`` spoiled inputs; only errors of ours may leave."""
    row, rng = Row(f"hostile input: {door.what}"), random.Random(seed)  # noqa: S311 - inputs, no secrets
    door.enter(door.valid)
    for number, spoiled in enumerate((*door.corpus, *(spoil(door.valid, rng) for _ in range(count)))):
        try:
            door.enter(spoiled)
        except FastloadError as error:
            row.add(f"{number}", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - whatever else it is, is what is looked for
            row.add(f"{number}", "raw", f"{error!r} by {spoiled[:300]!r}")
        else:
            row.add(f"{number}", "taken")
    return row
