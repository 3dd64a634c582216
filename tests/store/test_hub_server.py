"""The hub that tests run against is one: huggingface's own client downloads from it."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hub_faults import Cut, WrongBytes
from hub_server import HubServer, Repo, split_port
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model-00001-of-00002.safetensors": hashlib.shake_128(b"one").digest(300_000),
    "model-00002-of-00002.safetensors": hashlib.shake_128(b"two").digest(200_000),
    "deep/er/tokenizer.json": b"{}" * 1000,
    "empty.txt": b"",
}
RIGHT = "hf_right"


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    from huggingface_hub import constants, snapshot_download

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)

    def run(hub: HubServer, repo: str = "org/name", **more: object) -> Path:
        return Path(snapshot_download(repo, endpoint=hub.url, cache_dir=tmp_path, max_workers=2, **more))  # type: ignore[call-overload, unused-ignore]

    return run


def test_the_hubs_own_client_gets_every_byte(download: Callable[..., Path]) -> None:
    with HubServer({"org/name": Repo(FILES)}) as hub:
        folder = download(hub)
        assert {path: (folder / path).read_bytes() for path in FILES} == FILES
        assert folder.name == hub.repos["org/name"].commit


def test_a_listing_comes_in_pages(download: Callable[..., Path]) -> None:
    with HubServer({"org/name": Repo(FILES)}, page_entries=2) as hub:
        folder = download(hub)
        assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(FILES)
        assert len(hub.asked("hub", "/tree/")) == 4  # five files and two folders


def test_large_files_come_from_another_host_and_no_token_goes_there(download: Callable[..., Path]) -> None:
    with HubServer({"org/name": Repo(FILES)}, tokens={RIGHT: frozenset({"org/name"})}) as hub:
        download(hub, token=RIGHT)
        large = [path for path in FILES if path.endswith(".safetensors")]
        assert split_port(hub.url)[0] != split_port(hub.cdn_url)[0]
        assert sorted(request.path.rpartition("/")[2] for request in hub.asked("cdn")) == large
        assert all(request.headers["authorization"] == f"Bearer {RIGHT}" for request in hub.asked("hub"))
        assert not any("authorization" in request.headers for request in hub.asked("cdn"))


def test_a_moved_ref_means_another_commit(download: Callable[..., Path]) -> None:
    repo = Repo(FILES)
    first = repo.commit
    with HubServer({"org/name": repo}) as hub:
        second = repo.push({"config.json": b"{}"})
        assert download(hub).name == second
        assert download(hub, revision=first).name == first


def test_a_gated_repo_wants_a_token_with_access(download: Callable[..., Path]) -> None:
    from huggingface_hub.errors import GatedRepoError

    tokens = {RIGHT: frozenset({"org/name"}), "hf_other": frozenset[str]()}
    with HubServer({"org/name": Repo(FILES, is_gated=True)}, tokens=tokens) as hub:
        for token in (None, "hf_other"):
            with pytest.raises(GatedRepoError):
                download(hub, token=token)
        assert download(hub, token=RIGHT).name == hub.repos["org/name"].commit


@pytest.mark.parametrize(
    ("repo", "revision", "kind"),
    [("org/other", None, "RepositoryNotFoundError"), ("org/name", "v9", "RevisionNotFoundError")],
)
def test_what_is_not_there_is_said_as_the_hub_says_it(
    download: Callable[..., Path], repo: str, revision: str | None, kind: str
) -> None:
    with HubServer({"org/name": Repo(FILES)}) as hub:
        with pytest.raises(Exception, match=r"404 Client Error") as caught:
            download(hub, repo, revision=revision)
        assert type(caught.value).__name__ == kind


def test_a_wrong_byte_of_the_right_size_is_taken_by_the_hubs_client(download: Callable[..., Path]) -> None:
    """Why fastload checks digests itself."""
    name = "model-00001-of-00002.safetensors"
    with HubServer({"org/name": Repo(FILES)}) as hub:
        hub.faults.add(WrongBytes(1000), path=f"*{name}", host="cdn")
        content = (download(hub) / name).read_bytes()
        assert [at for at in range(len(content)) if content[at] != FILES[name][at]] == [1000]


def test_a_cut_connection_is_recorded_with_what_was_sent() -> None:
    with HubServer({"org/name": Repo({"config.json": b"x" * 1000})}) as hub:
        hub.faults.add(Cut(after_bytes=400))
        with socket.create_connection(split_port(hub.url)) as client:
            client.sendall(b"GET /org/name/resolve/main/config.json HTTP/1.1\r\nHost: x\r\n\r\n")
            while client.recv(1 << 16):
                pass
        assert hub.served_bytes("config.json") == 400


def test_it_sends_faster_than_any_client_reads() -> None:
    """One large body is one call of the system; what a benchmark measures here is the client."""
    size = 256 << 20
    with HubServer({"org/name": Repo({"model.safetensors": bytes(size)})}, has_cdn=False) as hub:
        with socket.create_connection(split_port(hub.url)) as client:
            client.sendall(b"GET /org/name/resolve/main/model.safetensors HTTP/1.1\r\nHost: x\r\n\r\n")
            buffer, got = bytearray(4 << 20), 0
            with Stopwatch() as watch:
                while got < size:
                    got += client.recv_into(buffer)
        assert size / watch.seconds > 0.1e9  # 3.4e9 on two idle cores, a share of that on busy ones


def test_nothing_is_left_when_it_ends(leaks_nothing: None) -> None:
    with HubServer({"org/name": Repo(FILES)}) as hub, socket.create_connection(split_port(hub.url)) as client:
        client.sendall(b"GET /api/models/org/name HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
