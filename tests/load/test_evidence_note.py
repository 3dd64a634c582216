"""The report and one log line say what proved the bytes, what that cost, and what makes it cheaper."""

from __future__ import annotations

import logging
import shlex

import pytest

import fastload
from fastload import Options
from fastload.cli import main
from hub_server import HubServer, Repo
from models import MIB
from proven_models import PLACES, REPO, Model
from stored_models import COMMIT, write_cache, write_folder
from writing import pack


def line(caplog: pytest.LogCaptureFixture) -> str:
    """The one line that was logged since it was last asked for."""
    lines = [record.getMessage() for record in caplog.records if "evidence" in record.getMessage()]
    caplog.clear()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("kind", PLACES)
def test_the_line_names_the_evidence_and_its_cost(model: Model, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = PLACES[kind](model)
    with caplog.at_level(logging.INFO, "fastload"):
        report = fastload.load(folder).report
    said = line(caplog)
    assert said == f"{folder}: evidence {kind}: {report.evidence_reason}"
    assert f"4 blocks, {report.busy_s['hash']:.2f} s of hashing" in said
    assert report.to_dict()["evidence_reason"] == report.evidence_reason
    assert ("in parallel" in said, "--record" in said) == (True, not kind.startswith("manifest"))


@pytest.mark.parametrize("kind", ["etag", "sha256", "none", "part"])
def test_what_it_says_makes_it_cheaper(model: Model, kind: str) -> None:
    places = {"etag": model.downloaded, "sha256": model.cached, "part": model.cached}
    folder = places[kind]() if kind in places else write_folder(model.local.parent / "b c", model.files)
    globs = "1.0" if kind == "part" else None
    report = fastload.load(folder, tensors=globs).report
    if kind in {"none", "part"}:
        assert report.evidence_reason.startswith("unverified: ")
    words = shlex.split(report.evidence_reason.partition("fastload ")[2])
    assert main(words) == 0
    again = fastload.load(folder, tensors=globs).report
    assert (again.evidence.partition(" ")[0], "fastload" in again.evidence_reason) == ("manifest", False)


def test_what_a_stream_hashes_before_it_begins_is_counted(model: Model) -> None:
    folder = model.cached()
    stream = fastload.stream(folder, verify="require")
    list(stream)
    report = stream.report
    assert "in the order of each file before the stream began" in report.evidence_reason
    assert f"{report.busy_s['hash']:.2f} s of hashing" in report.evidence_reason


def test_a_part_without_block_digests_is_called_unverified(model: Model) -> None:
    report = fastload.load(model.cached(), tensors="1.0").report
    assert (report.evidence, report.evidence_reason.startswith("unverified: no block digests")) == ("none", True)


def test_a_load_that_leaves_a_manifest_says_so(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    model.cached()
    with caplog.at_level(logging.INFO, "fastload"):
        fastload.load(REPO, options=model.options)
    assert "a manifest was left, so the next load hashes in parallel" in line(caplog)


def test_what_is_read_for_the_manifest_alone_is_counted(model: Model) -> None:
    folder = model.cached()
    bare = fastload.load(folder).report
    report = fastload.load(REPO, options=model.options).report
    small = sum(len(content) for name, content in model.files.items() if not name.endswith(".safetensors"))
    assert report.bytes_read == bare.bytes_read + small
    assert report.bytes_by_tier == {"local": report.bytes_read}
    assert report.evidence_reason.endswith(f"({small:,} bytes were read for it)")


def test_a_component_does_not_have_the_others_read_for_its_manifest(model: Model) -> None:
    sizes = {"vae": MIB, "transformer": 65 * MIB}
    files = {f"{name}/model.safetensors": pack({"w": ("U8", [size], bytes(size))}) for name, size in sizes.items()}
    write_cache(model.local, REPO, COMMIT, files)
    loads = [fastload.load(REPO, subfolder="vae", options=model.options).report for _ in range(2)]
    for report in loads:
        assert report.evidence == "sha256"
        assert report.bytes_read < 2 * MIB
        assert report.evidence_reason.endswith(f"to hash in parallel: fastload verify {REPO} --record")
    assert fastload.verify(REPO, record=True, options=model.options).recorded
    assert fastload.load(REPO, subfolder="vae", options=model.options).report.evidence == "manifest"


def test_nothing_is_advised_to_whoever_wanted_no_proof(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fastload"):
        fastload.load(model.cached(), verify="off")
    assert line(caplog).endswith("evidence none: unverified: verify is off")


def test_what_comes_from_the_hub_is_cheaper_from_the_disk(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer({REPO: Repo(model.files)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        report = fastload.load(REPO, options=Options(local=str(model.local), write_through="off")).report
    assert report.evidence == "listing"
    assert report.evidence_reason.endswith(f"fastload warm {REPO}")


def test_the_command_prints_it(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model.cached()
    assert main(["load", str(folder)]) == 0
    assert f"fastload verify {folder} --record" in capsys.readouterr().out
