"""What another tool adds to a snapshot that has a manifest: proven the long way until the advised command was run."""

from __future__ import annotations

import hashlib
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import fastload
from fastload import IntegrityError, Options
from fastload._verify.manifest import dump_manifest, parse_manifest
from fastload.cli import main
from models import MIB, assert_same
from proven_models import REPO, Model, flip
from stored_models import COMMIT, write_cache, write_folder
from writing import one_tensor

SHARD, VARIANT = "model-00001-of-00002.safetensors", "model.fp16.safetensors"


def add(snapshot: Path, name: str, content: bytes) -> None:
    """As the hub's client does."""
    blob = snapshot.parent.parent / "blobs" / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))


def follow(report: fastload.Report, options: Options) -> int:
    """Run the command that ``report`` advises."""
    words = shlex.split(report.evidence_reason.partition("fastload ")[2].partition(";")[0])
    tiers = ["--local", str(options.local), "--shared", str(options.shared), "--tiers", "local,shared"]
    return main([*words, *tiers])


def test_the_advised_command_lets_the_next_load_hash_in_parallel(model: Model) -> None:
    snapshot = model.warmed()
    add(snapshot, VARIANT, one_tensor())
    first = fastload.load(REPO, variant="fp16", options=model.options).report
    assert (first.evidence, "in the order" in first.evidence_reason) == ("sha256", True)
    assert follow(first, model.options) == 0
    second = fastload.load(REPO, variant="fp16", verify="require", options=model.options).report
    assert (second.evidence, second.evidence_reason.endswith("in parallel")) == ("manifest", True)
    assert_same(fastload.load(REPO, verify="require", options=model.options), model.tensors)
    assert not fastload.verify(REPO, record=True, options=model.options).recorded
    (facts,) = (each for each in fastload.snapshots(options=model.options) if each.tier == "local")
    assert not facts.brought_by_fastload  # so that nothing evicts what another tool has brought
    flip(snapshot / VARIANT, len(one_tensor()) - 1)
    with pytest.raises(IntegrityError, match="block 0"):
        fastload.load(REPO, variant="fp16", options=replace(model.options, tiers="local"))


def test_what_nobody_proves_is_not_added(model: Model) -> None:
    (model.warmed() / "adapter_model.safetensors").write_bytes(one_tensor())
    assert not fastload.verify(REPO, record=True, options=model.options).recorded


def test_safetensors_beside_other_weights_are_known(model: Model) -> None:
    write_folder(model.shared / "org/name", {"q.gguf": b"GGUF" + bytes(1000), "config.json": b"{}"})
    snapshot = Path(fastload.warm(REPO, include="*.gguf", options=model.options).path)
    add(snapshot, "model.safetensors", one_tensor())
    options = replace(model.options, tiers="local")
    report = fastload.load(REPO, verify="require", options=options).report
    assert report.evidence == "sha256"
    assert follow(report, options) == 0
    assert fastload.load(REPO, verify="require", options=options).report.evidence == "manifest"


def test_manifests_has_what_was_added_and_not_what_the_manifest_beside_it_says(model: Model, tmp_path: Path) -> None:
    """Else the blocks that came with a mount would pass for what we have found ourselves."""
    model.warmed()
    mount = write_cache(tmp_path / "mount", REPO, COMMIT, model.files)
    fastload.verify(mount, record=True)
    (beside,) = (mount.parent.parent / ".fastload/manifests").iterdir()
    right = parse_manifest(beside.read_bytes(), path=str(beside))
    files = tuple(replace(file, blocks=tuple("ab" * 32 for _ in file.blocks)) for file in right.files)
    beside.write_bytes(dump_manifest(replace(right, files=files)))
    add(mount, VARIANT, one_tensor())
    options = Options(shared=str(tmp_path / "mount"), tiers="shared", manifests=str(tmp_path / "manifests"))
    reports = [fastload.load(REPO, variant="fp16", options=options).report for _ in range(2)]
    assert [report.evidence for report in reports] == ["sha256", "manifest"]
    (kept,) = (path for path in (tmp_path / "manifests").rglob("*.json") if ".stamp" not in path.name)
    made = parse_manifest(kept.read_bytes(), path=str(kept))
    assert made.find(VARIANT) is not None
    assert {file.path: file.blocks for file in right.files}.items() <= {f.path: f.blocks for f in made.files}.items()


def test_the_advice_is_for_the_mount_that_served(model: Model, tmp_path: Path) -> None:
    """The name leads to the first one, which has it wrong."""
    damaged = write_cache(model.shared, REPO, COMMIT, model.files)
    write_cache(tmp_path / "more", REPO, COMMIT, model.files)
    flip(damaged / SHARD, 5 * MIB)
    options = replace(model.options, shared=f"{model.shared}:{tmp_path / 'more'}", write_through="off")
    weights = fastload.load(REPO, options=options)
    assert_same(weights, model.tensors)
    assert follow(weights.report, options) == 0
    assert (tmp_path / "more/models--org--name/.fastload/manifests").is_dir()
