"""``warm`` with a larger wish than before: what is missing of it comes from who has it, not from what is there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import huggingface_hub
import pytest

import fastload
from fastload import Options
from fastload._store.admit.stamp import read_noted
from fastload._store.folder_offer import read_manifest
from fastload._store.keep.evict import evict
from fastload._store.keep.usage import count_kept_bytes, is_brought
from fastload._store.layout import RepoLayout, repo_folder
from hub_server import HubServer, Repo
from kill_sweep import copied, sweep
from stored_models import COMMIT, model_files, write_cache

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = "org/name"
FILES = {**model_files(), "head.pt": b"torch's"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """All of the model."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer({REPO: Repo(FILES)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """The local tier and the hub."""
    return Options(local=str(tmp_path / "local"), tiers="local,hub")


@pytest.mark.parametrize("names_commit", [True, False])
def test_a_file_that_was_left_out_comes_from_the_hub(names_commit: bool, hub: HubServer, options: Options) -> None:  # noqa: FBT001
    first = fastload.warm(REPO, options=options)
    name = f"{REPO}@{first.commit}" if names_commit else REPO
    more = fastload.warm(name, include="*.pt", options=options)
    assert more.path == first.path
    assert sorted(os.listdir(more.path)) == sorted(FILES)
    weights = sum(len(content) for path, content in FILES.items() if path.endswith(".safetensors"))
    assert hub.served_bytes("model-0000") == weights, "what was there is kept"


@pytest.mark.usefixtures("hub")
def test_what_was_excluded_comes_from_the_hub(options: Options) -> None:
    fastload.warm(REPO, exclude="tokenizer*", options=options)
    assert sorted(os.listdir(fastload.warm(REPO, options=options).path)) == sorted(model_files())


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_asked_for_it_is_an_error(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """To go on with what is there would say that there is no more."""
    first = fastload.warm(REPO, options=options)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # discard: nobody listens
    with pytest.raises(fastload.NetworkError):
        fastload.warm(f"{REPO}@{first.commit}", include="*.pt", options=replace(options, deadline=4))
    assert fastload.warm(f"{REPO}@{first.commit}", options=options).path == first.path


def brought(snapshot: fastload.Snapshot) -> list[str]:
    """What is in the folder."""
    return sorted(os.listdir(snapshot.path))


def test_a_wider_glob_is_not_met_by_what_a_narrower_one_brought(
    monkeypatch: pytest.MonkeyPatch, options: Options
) -> None:
    files = {"m-Q4.gguf": b"4" * 100, "m-Q8.gguf": b"8" * 100, "config.json": b"{}"}
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer({REPO: Repo(files)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        first = fastload.warm(REPO, include="*Q4*.gguf", options=options)
        assert brought(first) == ["config.json", "m-Q4.gguf"]
        assert brought(fastload.warm(f"{REPO}@{first.commit}", include="*.gguf", options=options)) == sorted(files)
        requests = len(server.requests)
        fastload.warm(f"{REPO}@{first.commit}", include=["*Q8*.gguf", "m-Q4.gguf"], options=options)
        assert len(server.requests) == requests, "the narrower glob and the name are known to be met"


@pytest.fixture
def shared(options: Options, tmp_path: Path) -> Options:
    """With a mount between."""
    return replace(options, shared=str(tmp_path / "shared"), tiers="local,shared,hub")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("is_local_first", [False, True])
def test_a_mount_that_was_brought_without_it_does_not_give_it(is_local_first: bool, shared: Options) -> None:  # noqa: FBT001
    fastload.warm(REPO, to="shared", options=shared)
    if is_local_first:
        fastload.warm(REPO, options=shared)
    assert brought(fastload.warm(REPO, include="*.pt", options=shared)) == sorted(FILES)


@pytest.mark.usefixtures("hub")
def test_what_a_mount_was_brought_without_comes_from_the_hub(shared: Options) -> None:
    fastload.warm(REPO, to="shared", exclude="tokenizer*", options=shared)
    assert brought(fastload.warm(REPO, options=shared)) == sorted(model_files())


def test_a_mount_that_has_it_gives_it_once_the_hub_has_said_so(hub: HubServer, shared: Options, tmp_path: Path) -> None:
    """As an older client of the hub leaves it: with all files, and no word of which there are."""
    write_cache(tmp_path / "shared", REPO, hub.repos[REPO].commit, FILES)
    snapshot = fastload.warm(REPO, include="*.pt", options=shared)
    assert brought(snapshot) == sorted(FILES)
    assert snapshot.report is not None
    assert snapshot.report.tier == f"shared:{tmp_path / 'shared'}"
    assert hub.served_bytes("/resolve/") == 0
    requests = len(hub.requests)
    assert fastload.warm(f"{REPO}@{snapshot.commit}", include="*.pt", options=shared).report is None
    assert len(hub.requests) == requests


@pytest.mark.usefixtures("hub")
def test_without_a_hub_to_ask_the_mount_serves_and_the_hub_adds_to_it_later(shared: Options) -> None:
    fastload.warm(REPO, to="shared", options=shared)
    offline = replace(shared, tiers="local,shared")
    assert brought(fastload.warm(REPO, include="*.pt", options=offline)) == sorted(model_files())
    again = fastload.warm(REPO, include="*.pt", options=offline)
    assert again.report is None, "nothing was to do"
    assert brought(fastload.warm(f"{REPO}@{again.commit}", include="*.pt", options=shared)) == sorted(FILES)


STEPS = 32
"""More than a second warm takes with what is called by its commit."""

FORMATS = {**model_files(), "extra.gguf": b"g" * 5000, "pytorch_model.bin": b"b" * 7000}


@pytest.fixture
def both(tmp_path: Path) -> Options:
    """A mount with weights in three formats."""
    write_cache(tmp_path / "shared", REPO, COMMIT, FORMATS)
    return Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers="local,shared")


def layout_of(snapshot: fastload.Snapshot) -> RepoLayout:
    """Of its repo."""
    return RepoLayout(os.path.dirname(os.path.dirname(snapshot.path)))


def named(snapshot: fastload.Snapshot) -> list[str]:
    """What its manifest names."""
    manifest = read_manifest(layout_of(snapshot), COMMIT)
    assert manifest is not None
    return [file.path for file in manifest.files]


@pytest.mark.parametrize("globs", [("*.gguf", "pytorch_model.bin", "*.gguf"), ("*.bin", "extra.gguf", "*.bin")])
def test_a_second_wish_keeps_what_the_first_has_brought(globs: tuple[str, ...], both: Options) -> None:
    first, *_, last = [fastload.warm(f"{REPO}@{COMMIT}", include=glob, options=both) for glob in globs]
    assert last.report is None, "both wishes are known to be met"
    assert named(last) == sorted(FORMATS)
    assert count_kept_bytes(str(both.local)) >= sum(map(len, FORMATS.values()))
    found = fastload.verify(f"{REPO}@{COMMIT}", options=both)
    assert {(file.path, file.evidence) for file in found.files} == {(path, "blocks") for path in FORMATS}
    assert read_noted(layout_of(first).stamp(COMMIT)).keys() == FORMATS.keys()


def test_what_two_wishes_have_brought_goes_where_room_is_wanted(both: Options) -> None:
    for glob in ("*.gguf", "pytorch_model.bin"):
        snapshot = fastload.warm(f"{REPO}@{COMMIT}", include=glob, options=both)
    layout = layout_of(snapshot)
    for path in (layout.stamp(COMMIT), layout.manifest(COMMIT)):
        os.utime(path, (0, 0))
    assert [kept.commit for kept in evict(str(both.local), 1)] == [COMMIT]
    assert not os.path.exists(snapshot.path)


def test_a_second_warm_that_is_killed_at_any_step_leaves_the_snapshot_fastloads(both: Options, tmp_path: Path) -> None:
    """Between its folder and its manifest it has files that no manifest names, as after a download by another tool."""
    fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both)
    with copied(tmp_path / "local", STEPS) as roots:
        killed = sweep(f"warm {both.shared} {REPO}@{COMMIT} *.bin", roots)
        assert 4 < killed < STEPS
        shown_early = 0
        for root in roots[:killed]:
            layout = RepoLayout(repo_folder(str(root), REPO))
            kept = read_manifest(layout, COMMIT)
            is_named = kept is not None and "pytorch_model.bin" in [file.path for file in kept.files]
            shown_early += (Path(layout.snapshot(COMMIT)) / "pytorch_model.bin").exists() and not is_named
            assert is_brought(str(root), layout, COMMIT)
            options = replace(both, local=str(root))
            other = fastload.warm(f"{REPO}@{COMMIT}", include=["*.gguf", "config.json"], options=options)
            assert other.path == layout.snapshot(COMMIT) and is_brought(str(root), layout, COMMIT)
            last = fastload.warm(f"{REPO}@{COMMIT}", include="*.bin", options=options)
            assert named(last) == sorted(FORMATS)
            assert is_brought(str(root), layout, COMMIT)
            assert fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=options).report is None
        assert shown_early


def test_what_a_killed_warm_left_is_fastloads_after_one_of_another_wish_too(both: Options, tmp_path: Path) -> None:
    fastload.warm(f"{REPO}@{COMMIT}", include="extra.gguf", exclude="tok*", options=both)
    with copied(tmp_path / "local", STEPS) as roots:
        for root in roots[: sweep(f"warm {both.shared} {REPO}@{COMMIT} *.bin", roots)]:
            fastload.warm(f"{REPO}@{COMMIT}", include="tok*", options=replace(both, local=str(root)))
            assert is_brought(str(root), RepoLayout(repo_folder(str(root), REPO)), COMMIT)


@pytest.mark.parametrize("path", ["pytorch_model.bin", "notes.txt"])
def test_what_a_tool_added_before_stays_that_tools_whatever_is_killed(both: Options, tmp_path: Path, path: str) -> None:
    first = fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both)
    (Path(first.path) / path).write_bytes(FORMATS.get(path, b"mine"))
    with copied(tmp_path / "local", STEPS) as roots:
        for root in roots[: sweep(f"warm {both.shared} {REPO}@{COMMIT} *.bin", roots)]:
            assert not is_brought(str(root), RepoLayout(repo_folder(str(root), REPO)), COMMIT)


def test_what_a_tool_adds_after_a_kill_is_that_tools(both: Options, tmp_path: Path) -> None:
    fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both)
    with copied(tmp_path / "local", STEPS) as roots:
        for root in roots[: sweep(f"warm {both.shared} {REPO}@{COMMIT} *.bin", roots)]:
            layout = RepoLayout(repo_folder(str(root), REPO))
            (Path(layout.snapshot(COMMIT)) / "pytorch_model.bin").unlink(missing_ok=True)
            (Path(layout.snapshot(COMMIT)) / "pytorch_model.bin").write_bytes(b"another's")
            kept = read_manifest(layout, COMMIT)
            is_named = kept is not None and "pytorch_model.bin" in [file.path for file in kept.files]
            assert is_brought(str(root), layout, COMMIT) == is_named


def test_what_huggingface_hub_brings_after_a_kill_is_its_own(
    tmp_path: Path, shared: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the very link that the killed ``warm`` had noted."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    path = "config.json"  # which the hub and a mount call by the same name
    with HubServer({REPO: Repo(FORMATS)}) as hub:
        commit = hub.repos[REPO].commit
        write_cache(tmp_path / "shared", REPO, commit, FORMATS)
        fastload.warm(f"{REPO}@{commit}", exclude=path, options=replace(shared, tiers="local,shared"))
        brings = 0
        with copied(tmp_path / "local", STEPS) as roots:
            for root in roots[: sweep(f"warm {shared.shared} {REPO}@{commit} {path}", roots)]:
                layout = RepoLayout(repo_folder(str(root), REPO))
                link = Path(layout.snapshot(commit)) / path
                was_there = link.is_symlink()
                huggingface_hub.hf_hub_download(REPO, path, revision=commit, cache_dir=root, endpoint=hub.url)
                brings += not was_there
                assert is_brought(str(root), layout, commit) == was_there
                for evidence in (layout.stamp(commit), layout.manifest(commit)):
                    os.utime(evidence, (0, 0))
                evict(str(root), 1)
                assert link.exists() != was_there
        assert brings


def die(*_: object) -> None:
    """As a kill would, as far as what is written after it goes."""
    raise KeyboardInterrupt


def killed_at(monkeypatch: pytest.MonkeyPatch, name: str, glob: str, options: Options) -> None:
    """A ``warm`` that ends where publishing comes to the function ``name``."""
    with monkeypatch.context() as patched:
        patched.setattr(f"fastload._store.admit.publish.{name}", die)
        with pytest.raises(KeyboardInterrupt):
            fastload.warm(f"{REPO}@{COMMIT}", include=glob, options=options)


def test_a_note_of_what_was_never_shown_goes_with_the_next_publishing(
    both: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = layout_of(fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both))
    killed_at(monkeypatch, "_rename_folder", "*.bin", both)
    stamp = Path(layout.stamp(COMMIT))
    assert "coming" in json.loads(stamp.read_bytes())
    fastload.warm(f"{REPO}@{COMMIT}", include=["tok*", "*.gguf"], exclude="config.json", options=both)
    assert "coming" not in json.loads(stamp.read_bytes())


@pytest.mark.parametrize("again", ["note_coming", "_rename_folder", "_write_union"])
@pytest.mark.parametrize("can_exchange", [True, False])
def test_two_that_are_killed_one_after_the_other_leave_it_fastloads(
    both: Options, monkeypatch: pytest.MonkeyPatch, again: str, *, can_exchange: bool
) -> None:
    """The second has made the links anew, and not put them in the place of the first one's."""
    if not can_exchange:
        monkeypatch.setattr("fastload._store.admit.publish.exchange", lambda *_: False)
    layout = layout_of(fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both))
    for name in ("_write_union", again):
        killed_at(monkeypatch, name, "*.bin", both)
        assert is_brought(str(both.local), layout, COMMIT)


def test_a_link_that_another_has_made_anew_is_not_the_one_that_was_noted(
    both: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may get the inode of the one that is gone, and then has another mtime."""
    layout = layout_of(fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both))
    killed_at(monkeypatch, "_write_union", "*.bin", both)
    link = Path(layout.snapshot(COMMIT)) / "pytorch_model.bin"
    made_ns = link.lstat().st_mtime_ns
    for mtime_ns in (made_ns + 1, made_ns):
        os.utime(link, ns=(mtime_ns, mtime_ns), follow_symlinks=False)
        assert is_brought(str(both.local), layout, COMMIT) == (mtime_ns == made_ns)
    new = link.with_name("new")
    new.symlink_to(os.readlink(link))
    os.utime(new, ns=(made_ns, made_ns), follow_symlinks=False)
    new.replace(link)
    assert not is_brought(str(both.local), layout, COMMIT)


def test_wishes_that_leave_out_other_files_are_both_met(both: Options) -> None:
    for _ in range(2):
        snapshot = fastload.warm(f"{REPO}@{COMMIT}", options=both)
        more = fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", exclude="tok*", options=both)
    assert (snapshot.report, more.report) == (None, None)
    assert fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both).report is not None, "no wish says so"


def test_what_was_removed_meanwhile_is_not_said_to_be_there(both: Options) -> None:
    first = fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both)
    os.unlink(os.path.join(first.path, "extra.gguf"))
    second = fastload.warm(f"{REPO}@{COMMIT}", include="*.bin", options=both)
    assert named(second) == sorted(FORMATS.keys() - {"extra.gguf"})
    assert fastload.warm(f"{REPO}@{COMMIT}", include="*.bin", options=both).report is None
    assert brought(fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both)) == sorted(FORMATS)


def test_what_was_written_in_place_is_still_told_by_its_blocks(both: Options) -> None:
    first = fastload.warm(f"{REPO}@{COMMIT}", include="*.gguf", options=both)
    with open(os.path.join(first.path, "extra.gguf"), "r+b") as file:
        file.write(b"G")
    before = read_noted(layout_of(first).stamp(COMMIT))["extra.gguf"]
    second = fastload.warm(f"{REPO}@{COMMIT}", include="*.bin", options=both)
    assert read_noted(layout_of(second).stamp(COMMIT))["extra.gguf"] == before
    with pytest.raises(fastload.IntegrityError) as caught:
        fastload.verify(f"{REPO}@{COMMIT}", options=both)
    assert [finding.path for finding in caught.value.findings] == ["extra.gguf"]
