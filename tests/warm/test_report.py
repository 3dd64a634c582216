"""What ``warm`` says of what it did; and files brought by the hub's own client, checked in the same way."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import AuthError, IntegrityError, Options
from hub_faults import WrongBytes
from hub_server import HubServer, Repo
from stored_models import COMMIT, model_files, write_cache, write_download_metadata, write_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "org/name"
FILES = model_files(shard_bytes=100_000)


def test_a_report_says_what_was_brought_and_nothing_where_nothing_was(tmp_path: Path) -> None:
    write_cache(tmp_path / "shared", REPO, COMMIT, FILES)
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    report = fastload.warm(REPO, options=options).report
    assert report is not None
    total_bytes = sum(map(len, FILES.values()))
    assert (report.bytes, report.bytes_read) == (total_bytes, total_bytes)
    assert (report.tier, report.evidence, report.commit) == (f"shared:{tmp_path / 'shared'}", "sha256", COMMIT)
    assert report.blocks_verified == len(FILES)
    assert report.seconds == pytest.approx(sum(report.stages.values()))
    longest = max(report.stages, key=lambda stage: report.stages[stage])
    assert report.bound_by in ({"read", "hash", "write"} if longest == "stream" else {longest})
    assert report.busy_s["write"] > 0
    assert report.busy_s["hash"] > 0
    assert re.fullmatch(
        rf"{len(FILES)} blocks, [\d.]+ s of hashing; compared with the names of their blobs", report.evidence_reason
    )
    assert (report.commit_learnt, report.device, report.reader) == (f"shared:{tmp_path / 'shared'}", "local", "shared")
    facts = report.to_dict()
    assert facts.pop("group") is None  # no ranks
    for name, value in facts.items():
        assert value not in {"", None} if isinstance(value, str | None) else True, name
    assert fastload.warm(REPO, options=options).report is None


def test_a_plain_folder_proves_nothing_of_itself(tmp_path: Path) -> None:
    write_folder(tmp_path / "shared" / "name", FILES)
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    report = fastload.warm("name", options=options).report
    assert report is not None
    assert report.evidence == "none"
    assert "unverified: shared:" in report.evidence_reason
    assert "'config.json' and of 4 more" in report.evidence_reason
    assert report.commit is not None


def test_each_kind_of_evidence_is_named(tmp_path: Path) -> None:
    write_download_metadata(write_folder(tmp_path / "shared" / "name", FILES), COMMIT, FILES)
    first = Options(local=str(tmp_path / "a"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    report = fastload.warm(f"org/name@{COMMIT}", options=first).report
    assert report is not None
    assert (report.evidence, report.commit_learnt) == ("etag", "name")
    assert report.evidence_reason.endswith("compared with what hf download noted of them")
    second = Options(local=str(tmp_path / "b"), shared=str(tmp_path / "a"), tiers=("local", "shared"))
    report = fastload.warm(f"org/name@{COMMIT}", options=second).report
    assert report is not None
    assert report.evidence == "manifest"
    assert report.evidence_reason.endswith("compared with the manifest of where they came from")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({REPO: Repo(FILES)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_the_hubs_own_client_brings_what_ours_would(hub: HubServer, tmp_path: Path) -> None:
    by_client = Options(local=str(tmp_path / "a"), transfer="hub")
    snapshot = fastload.warm(REPO, options=by_client)
    assert snapshot.report is not None
    assert snapshot.report.evidence == "listing"
    ours = fastload.warm(REPO, options=Options(local=str(tmp_path / "b")))
    inside = f"models--org--name/.fastload/manifests/{snapshot.commit}.json"
    assert (tmp_path / "a" / inside).read_bytes() == (tmp_path / "b" / inside).read_bytes()
    assert ours.commit == snapshot.commit
    assert os.listdir(tmp_path / "a/models--org--name/.fastload/staging") == []
    agents = [request.headers.get("user-agent", "") for request in hub.asked(path="safetensors")]
    assert any("hf_hub" in agent for agent in agents)


def test_wrong_bytes_that_the_hubs_client_takes_are_found(hub: HubServer, tmp_path: Path) -> None:
    hub.faults.add(WrongBytes(50_000), path="*", host="cdn", times=None)
    with pytest.raises(IntegrityError, match="twice"):
        fastload.warm(REPO, options=Options(local=str(tmp_path), transfer="hub"))
    assert not list(tmp_path.glob("models--org--name/snapshots/*"))


def test_a_model_that_is_refused_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(FILES, is_gated=True)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        with pytest.raises(AuthError):
            fastload.warm(REPO, options=Options(local=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == [".locks"]
