"""One contract for every tier: what it offers is all there is, known by the right digests, and readable from anywhere.

A new kind of tier is a subclass with one method.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING

import huggingface_hub
import pytest
from tqdm import tqdm

from fastload._store.folder_offer import offer_stored
from fastload._store.hub.client import ClientOffer
from fastload._store.root import Root
from fastload._store.signed_offer import SignedOffer
from fastload._store.stored import PlainFolder, Stored
from fastload._tier import shared_tier
from fastload._verify.digest import BLOCK_BYTES
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.manifest import Manifest, ManifestFile, dump_manifest
from fastload._verify.signature import SignedDigests
from fastload._verify.statement import WholeFile
from fastload.errors import FormatError, IntegrityError, NetworkError
from hub_clients import find, tier_of
from hub_faults import Refuse
from hub_server import HubServer, Repo
from stored_models import COMMIT, git_sha1, model_files, write_cache, write_download_metadata, write_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastload._read.reader import Reader
    from fastload._store.offer import Offer, OfferedFile

LARGE = "large.safetensors"
FILES = {
    **model_files(),
    "sub/folder/config.json": b"{}",
    "empty.txt": b"",
    LARGE: os.urandom(2 * BLOCK_BYTES + 12_345),
}


class OfferContract:
    """What every offer keeps. ``offer`` gives one that holds FILES."""

    tier: str
    knows_digests = True

    @pytest.fixture
    def offer(self, tmp_path: Path) -> Iterator[Offer]:
        with ExitStack() as closing_later:
            yield self.make(tmp_path, closing_later)

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        raise NotImplementedError

    def test_it_lists_every_file_with_its_size_sorted(self, offer: Offer) -> None:
        assert [(file.path, file.size) for file in offer.files] == sorted((p, len(c)) for p, c in FILES.items())
        assert offer.tier.kind == self.tier
        assert offer.evidence in {"signature", "manifest", "sha256", "etag", "listing"}
        assert offer.depth > 0

    def test_the_digests_it_knows_are_right(self, offer: Offer) -> None:
        for file in offer.files:
            content = FILES[file.path]
            assert file.sha256 in {None, hashlib.sha256(content).hexdigest()}
            assert file.git_sha1 in {None, git_sha1(content)}
            assert (file.sha256 is not None or file.git_sha1 is not None) == self.knows_digests

    def test_every_byte_of_every_file_can_be_read(self, offer: Offer) -> None:
        for file in offer.files:
            with closing(offer.open(file)) as reader:
                assert read(reader, file, 0, file.size) == FILES[file.path]
                reader.check_path()

    def test_any_block_can_be_read_by_any_thread(self, offer: Offer) -> None:
        file = next(file for file in offer.files if file.path == LARGE)
        found: dict[int, bytes] = {}
        with closing(offer.open(file)) as reader:

            def work(offset: int) -> None:
                found[offset] = read(reader, file, offset, min(BLOCK_BYTES, file.size - offset))

            threads = [threading.Thread(target=work, args=(o,)) for o in range(0, file.size, BLOCK_BYTES)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert b"".join(found[offset] for offset in sorted(found)) == FILES[LARGE]

    @pytest.mark.usefixtures("leaks_nothing")
    def test_a_reader_that_is_closed_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with ExitStack() as resources:
            offer = self.make(tmp_path, resources)
            offer.open(offer.files[0]).close()


def read(reader: Reader, file: OfferedFile, offset: int, length: int) -> bytes:
    """What a reader gives, into a buffer aligned as it wants."""
    import mmap

    if not length:
        return b""
    buffer = memoryview(mmap.mmap(-1, -(-length // 4096) * 4096))
    aligned = -(-length // reader.alignment_bytes) * reader.alignment_bytes
    reader.read_into(offset, [buffer[:aligned]])
    return bytes(buffer[:length])


def stored(root: Path, repo: str, folder: Path | None = None) -> Stored:
    """The snapshot of ``repo`` below ``root``, or the plain ``folder``."""
    if folder is not None:
        return PlainFolder(tier=shared_tier(str(root)), repo=repo, commit=None, folder=str(folder), missing=())
    found = Root(str(root), shared_tier(str(root))).find_commit(repo, COMMIT)
    assert found is not None
    return found


class TestCache(OfferContract):
    """A repo in the hub's layout: digests by the names of its blobs."""

    tier = "shared"

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        write_cache(folder, "org/name", COMMIT, FILES)
        return offer_stored(stored(folder, "org/name"))


class TestCacheWithManifest(OfferContract):
    """The same with a manifest of ours."""

    tier = "shared"

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        snapshot = write_cache(folder, "org/name", COMMIT, FILES)
        manifests = snapshot.parent.parent / ".fastload/manifests"
        manifests.mkdir(parents=True)
        manifest = Manifest(repo="org/name", commit=COMMIT, source="hub", files=tuple(map(digested, sorted(FILES))))
        (manifests / f"{COMMIT}.json").write_bytes(dump_manifest(manifest))
        return offer_stored(stored(folder, "org/name"))

    def test_it_knows_every_block(self, offer: Offer) -> None:
        assert all(file.blocks is not None for file in offer.files)


def digested(path: str) -> ManifestFile:
    """The entry of one of FILES."""
    from blake3 import blake3

    content = FILES[path]
    blocks = [blake3(content[at : at + BLOCK_BYTES]).hexdigest() for at in range(0, len(content), BLOCK_BYTES)]
    return ManifestFile(path, len(content), hashlib.sha256(content).hexdigest(), None, tuple(blocks))


class TestPlainFolder(OfferContract):
    """A folder of which nobody knows anything."""

    tier = "shared"
    knows_digests = False

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        return offer_stored(stored(folder, "name", write_folder(folder / "name", FILES)))

    def test_a_file_that_changed_since_it_was_listed_is_refused(self, offer: Offer, tmp_path: Path) -> None:
        file = offer.files[0]
        (tmp_path / "name" / file.path).write_bytes(b"other")
        with pytest.raises(IntegrityError):
            offer.open(file)

    def test_a_link_that_leads_out_of_the_folder_is_refused(self, offer: Offer, tmp_path: Path) -> None:
        file = offer.files[0]
        (tmp_path / "secret").write_bytes(FILES[file.path])
        (tmp_path / "name" / file.path).unlink()
        (tmp_path / "name" / file.path).symlink_to(tmp_path / "secret")
        with pytest.raises(FormatError, match="link"):
            offer.open(file)


class TestDownloadedFolder(OfferContract):
    """A folder that ``hf download --local-dir`` made."""

    tier = "shared"

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        plain = write_folder(folder / "name", FILES)
        write_download_metadata(plain, COMMIT, FILES)
        return offer_stored(stored(folder, "name", plain))


class TestHub(OfferContract):
    """A hub, by ranges."""

    tier = "hub"

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        hub = resources.enter_context(HubServer({"org/name": Repo(FILES)}))
        return find(resources.enter_context(tier_of(hub)))


class TestSigned(OfferContract):
    """A folder of which nobody knows anything, but what was signed of it."""

    tier = "shared"

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        offer = offer_stored(stored(folder, "name", write_folder(folder / "name", FILES)))
        digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in FILES.items()}
        statement = {name: WholeFile("sha256", digest) for name, digest in digests.items()}
        signed = SignedDigests("model.sig", "", "", "sha256", statement, (), sha256="")
        files = (replace(file, sha256=digests[file.path]) for file in offer.files)
        return SignedOffer(offer, signed, tuple(files), EvidenceKind.SIGNATURE)


class TestHubByItsOwnClient(OfferContract):
    """A hub, by huggingface_hub."""

    tier = "hub"

    @pytest.fixture(autouse=True)
    def watched_bars(self) -> None:
        """The client's first bar of a process starts a thread that tqdm never ends: before a test looks for leaks."""
        tqdm(total=1, file=io.StringIO()).close()

    def make(self, folder: Path, resources: ExitStack) -> Offer:
        hub = resources.enter_context(HubServer({"org/name": Repo(FILES)}))
        resources.callback(huggingface_hub.close_session)  # the client's own, one for the process
        offer = ClientOffer(find(resources.enter_context(tier_of(hub))), hub.url, str(folder / "scratch"))
        resources.callback(offer.close)
        return offer

    def test_nothing_of_the_scratch_is_left(self, tmp_path: Path) -> None:
        with ExitStack() as resources:
            offer = self.make(tmp_path, resources)
            offer.open(offer.files[0]).close()
            offer.open(offer.files[1])
        assert not (tmp_path / "scratch").exists()

    def test_what_its_client_cannot_do_is_ours(self, tmp_path: Path) -> None:
        with HubServer({"org/name": Repo(FILES)}) as hub, tier_of(hub) as tier:
            offer = ClientOffer(find(tier), hub.url, str(tmp_path))
            hub.faults.add(Refuse(404), path="*config.json", times=None)
            with pytest.raises(NetworkError, match="huggingface_hub did not bring it"):
                offer.open(next(file for file in offer.files if file.path == "config.json"))
            huggingface_hub.close_session()
