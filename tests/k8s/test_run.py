"""The commands of the examples, each with the environment, user, read-only root and mounts that its manifest gives."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from examples import CHECKOUT, VARIANTS, Pod, load_objects, load_pods
from hub_server import HubServer, Repo
from kubelet import Node, why_not_here
from pages import find_blocks
from stored_models import model_files, write_cache
from warming import content

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPO = "meta-llama/Llama-3.1-8B-Instruct"
COMMIT = "0e9e39f249a16976918f6564b8830bc894c89659"
FILES = model_files(3)
PATIENCE_S = 60.0
SERVING = [variant for variant in VARIANTS if any(pod.kind == "Deployment" for pod in load_pods(variant))]


@pytest.fixture(autouse=True)
def _possible(tmp_path: Path) -> None:
    reason = why_not_here(tmp_path)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    repo = Repo(FILES, is_gated=True)
    repo.commits[COMMIT] = repo.commits[repo.commit]
    repo.refs["main"] = COMMIT
    with HubServer({REPO: repo}, tokens={"from a secret": frozenset({REPO})}) as server:
        yield server


@pytest.fixture
def node(tmp_path: Path, hub: HubServer) -> Node:
    return Node(tmp_path / "node", {"HF_ENDPOINT": hub.url})


def _fill(folder: Path) -> None:
    """The file server's share, filled by somebody else."""
    write_cache(folder, REPO, COMMIT, FILES)


def _ends_well(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    for line in done.stderr.splitlines():
        json.loads(line)  # as --log-format json promises
    return done.stdout


def _snapshot(root: Path) -> Path:
    return root / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT


def _check_serves(node: Node, hub: HubServer, pod: Pod, tier: str) -> None:
    """The server's place, user and settings find the model, prove all of it, and ask nobody."""
    asked = len(hub.requests)
    found = json.loads(_ends_well(node.run(pod, "vllm", "python", "-m", "fastload", "resolve", "$(MODEL)", "--json")))
    assert (found["tier"], found["commit"]) == (tier, COMMIT)
    proof = json.loads(_ends_well(node.run(pod, "vllm", "python", "-m", "fastload", "verify", "$(MODEL)", "--json")))
    assert proof["evidence"] in {"manifest", "sha256"}
    assert len(hub.requests) == asked
    doctor = json.loads(_ends_well(node.run(pod, "vllm", "python", "-m", "fastload", "doctor", "$(MODEL)", "--json")))
    assert doctor["way"]["past"] == [] and doctor["way"]["past_reason"]
    touched = node.run(pod, "vllm", "sh", "-c", "for name in $HOME $TRITON_CACHE_DIR $TMPDIR; do mkdir -p $name; done")
    assert touched.returncode == 0, touched.stderr
    for place in ("/", "/models", "/shared"):
        assert node.run(pod, "vllm", "touch", f"{place}/x").returncode != 0


def _pods(variant: str) -> dict[str, Pod]:
    return {pod.name: pod for pod in load_pods(variant)}


@pytest.mark.parametrize("variant", ["hostpath", "local-pv"])
def test_an_init_container_brings_and_the_server_reads(variant: str, node: Node, hub: HubServer) -> None:
    pod = _pods(variant)["llama-8b"]
    path = _ends_well(node.run(pod, "warm")).strip()
    assert path == str(_snapshot(type(node.folder)("/models")))
    root = node.volume(pod, "models")
    assert content(_snapshot(root)) == FILES
    assert all(each.lstat().st_uid == 1000 for each in root.rglob("*"))
    metrics = node.run(pod, "vllm", "cat", "/tmp/fastload.prom").stdout
    assert f'fastload_last_success{{model="{REPO}@{COMMIT}"}} 1.0' in metrics
    asked = len(hub.requests)
    _ends_well(node.run(pod, "warm"))  # after a restart
    assert len(hub.requests) == asked
    _check_serves(node, hub, pod, "local")


@pytest.mark.parametrize(
    ("variant", "job", "tier"),
    [
        ("rwo-pvc", "download", "local:/models"),
        ("rwx-pvc", "fill", "shared:/shared"),
        ("hybrid", "fill", "shared:/shared"),
    ],
)
def test_a_server_waits_for_the_job_that_fills_its_volume(
    variant: str, job: str, tier: str, node: Node, hub: HubServer
) -> None:
    pods = _pods(variant)
    server = pods["llama-8b"]
    with node.start(server, "wait") as waiting:
        until_s = time.monotonic() + PATIENCE_S
        while not node.termination_log.read_text():
            assert time.monotonic() < until_s and waiting.poll() is None
            time.sleep(0.1)
        assert json.loads(node.termination_log.read_text().splitlines()[0])["exit_code"] == 12
        assert waiting.poll() is None
        _ends_well(node.run(pods[job], job))
        out, err = waiting.communicate(timeout=PATIENCE_S)
    there = _snapshot(type(node.folder)(tier.partition(":")[2]))
    assert (waiting.returncode, out.strip()) == (0, str(there)), err
    assert node.termination_log.read_text() == ""
    if variant == "hybrid":
        _ends_well(node.run(server, "warm"))
        tier = "local:/models"
    _check_serves(node, hub, server, tier.removesuffix(":/models"))


def test_a_server_that_cannot_be_what_it_waits_for_says_so(node: Node) -> None:
    """Only what is not there yet is waited for."""
    pod = _pods("rwo-pvc")["llama-8b"]
    node.replaced = {**node.replaced, "MODEL": "@"}
    done = node.run(pod, "wait")
    assert done.returncode == 2, done.stderr
    assert json.loads(node.termination_log.read_text())["exit_code"] == 2


@pytest.mark.parametrize("variant", ["rwo-pvc", "local-pv"])
def test_a_volume_is_given_to_the_group_that_the_pod_says(variant: str, node: Node, hub: HubServer) -> None:
    """By fsGroup alone: the volume is root's, and neither the writer's uid nor the reader's is the other one's."""
    pods = {name: _as(pod, uid=1234, group=4321) for name, pod in _pods(variant).items()}
    writer, container = (pods["download"], "download") if variant == "rwo-pvc" else (pods["llama-8b"], "warm")
    _ends_well(node.run(writer, container))
    root = node.claim("models")
    assert (root.stat().st_uid, root.stat().st_gid, root.stat().st_mode & 0o2770) == (0, 4321, 0o2770)
    below = [path for path in root.rglob("*") if not path.is_symlink()]
    assert {path.stat().st_gid for path in below} == {4321}
    assert all(path.stat().st_mode & 0o2000 for path in below if path.is_dir())
    reader = _as(pods["llama-8b"], uid=5678, group=4321)
    _check_serves(node, hub, reader, "local")


def _as(pod: Pod, uid: int, group: int) -> Pod:
    """With another uid, whose own group is 1000 as before, and another fsGroup."""
    context = {**pod.spec["securityContext"], "runAsUser": uid, "fsGroup": group}
    return replace(pod, spec={**pod.spec, "securityContext": context})


def test_an_export_that_is_not_the_pods_is_refused_at_once(node: Node) -> None:
    """A kubelet applies fsGroup to no NFS volume: it is the file server's to give."""
    node.export("models-shared", uid=0)
    pod = _pods("rwx-pvc")["fill"]
    done = node.run(pod, "fill")
    assert done.returncode == 15 and 15 in pod.owner["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
    assert json.loads(node.termination_log.read_text())["error"]["type"] == "NotWritableError"


def test_a_job_without_access_says_why_and_is_not_tried_again(node: Node, hub: HubServer) -> None:
    node.replaced = {**node.replaced, "HF_TOKEN": ""}
    pod = _pods("rwx-pvc")["fill"]
    done = node.run(pod, "fill")
    assert done.returncode in pod.owner["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"]
    reason = json.loads(node.termination_log.read_text())
    assert (reason["error"]["type"], reason["exit_code"]) == ("AuthError", 11)


@pytest.mark.parametrize("variant", ["hybrid", "air-gapped"])
def test_a_shared_source_and_the_nodes_own_disk(variant: str, node: Node, hub: HubServer) -> None:
    _fill(node.export("models-shared"))
    pod = _pods(variant)["llama-8b"]
    if variant == "air-gapped":
        package = node.folder / "image"
        shutil.copytree(CHECKOUT / "src" / "fastload", package / "fastload")
        node.image = {"/opt/fastload": package}
        _ends_well(node.run(pod, "install"))
        node.image = {}
        found = node.run(pod, "vllm", "python", "-c", "import fastload; print(fastload.__file__)")
        assert found.stdout.strip() == "/opt/plugin/fastload/__init__.py", found.stderr
    _ends_well(node.run(pod, "warm"))
    assert content(_snapshot(node.volume(pod, "models"))) == FILES
    assert hub.requests == []
    _check_serves(node, hub, pod, "local")


def test_a_block_that_went_bad_on_the_disk_is_read_from_the_source(node: Node, hub: HubServer) -> None:
    """The server may not write to the disk; what it gets is right all the same."""
    _fill(node.export("models-shared"))
    pod = _pods("hybrid")["llama-8b"]
    _ends_well(node.run(pod, "warm"))
    blob = (_snapshot(node.volume(pod, "models")) / "model-00001-of-00002.safetensors").resolve()
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    words = ("python", "-m", "fastload", "load", "$(MODEL)", "--json", "--no-progress")
    done = node.run(pod, "vllm", *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["tier"] == "local" and report["blocks_repaired"] >= 1


_LEAVE = """
import sys
from pathlib import Path
from huggingface_hub import snapshot_download
folder = snapshot_download(sys.argv[1], revision=sys.argv[2])
print(*sorted(path.name for path in Path(folder).iterdir()))
"""


@pytest.mark.parametrize("variant", SERVING)
def test_a_server_goes_on_without_fastload_as_docs_leave_says(variant: str, node: Node) -> None:
    """The hub's own client finds all of the model, by its own words, as the user of the server and on its mounts."""
    page = (CHECKOUT / "docs" / "leave.md").read_text()
    (block,) = (yaml.safe_load(each.text) for each in find_blocks("docs/leave.md") if each.language == "yaml")
    model, flag, commit, *_ = block["args"]
    assert flag == "--revision"
    (cache,) = block["env"]
    if variant == "rwx-pvc":
        assert "`/shared` in rwx-pvc" in page
        cache = {**cache, "value": "/shared"}
    pod = _pods(variant)["llama-8b"]
    places = {mount["mountPath"]: mount["name"] for mount in pod.container("vllm")["volumeMounts"]}
    write_cache(node.volume(pod, places[cache["value"]]), REPO, COMMIT, FILES, ref=None)
    node.replaced = {"HF_ENDPOINT": "http://127.0.0.1:9", cache["name"]: cache["value"]}
    done = node.run(pod, "vllm", "python", "-c", _LEAVE, model, commit)
    assert (done.returncode, done.stdout.split()) == (0, sorted(FILES)), done.stderr
    refused = node.run(pod, "vllm", "python", "-c", _LEAVE, "$(MODEL)", commit)
    assert "HFValidationError" in refused.stderr


def test_the_resident_warmer_is_ready_and_ends_when_told(node: Node, hub: HubServer) -> None:
    _fill(node.export("models-shared"))
    pod = _pods("daemonset")["warmer"]
    (config,) = (each for each in load_objects("daemonset") if each["kind"] == "ConfigMap")
    for name, text in config["data"].items():
        (node.volume(pod, "list") / name).write_text(text)
    ready = node.volume(pod, "tmp") / "ready"
    with node.start(pod, "warm") as process:
        until_s = time.monotonic() + PATIENCE_S
        while not ready.exists() and process.poll() is None:
            assert time.monotonic() < until_s
            time.sleep(0.1)
        probe = pod.containers[0]["readinessProbe"]["exec"]["command"]
        is_ready = ready.exists()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert is_ready, err
    assert probe == ["test", "-f", "/tmp/ready"] and not ready.exists()
    assert process.returncode == 143
    assert content(_snapshot(node.volume(pod, "models"))) == FILES
    metrics = (node.volume(pod, "metrics") / "fastload.prom").read_text()
    assert f'fastload_last_success{{model="{REPO}@{COMMIT}"}} 1.0' in metrics


@pytest.mark.parametrize("variant", ["hostpath/bench", "rwx-pvc/bench"])
def test_a_bench_job_measures_the_volume_of_its_example(variant: str, node: Node) -> None:
    """With less to read than in a cluster."""
    (pod,) = load_pods(variant)
    container: dict[str, Any] = pod.container("bench")
    words = [word if word != "8Gi" else "4Mi" for word in (*container["command"], *container["args"])]
    done = node.run(pod, "bench", *words, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == 1
    log = done.stderr + done.stdout  # as a container runtime keeps it
    block = next(each for each in find_blocks("examples/k8s/bench/README.md") if "sed" in each.text)
    for command in re.findall(r"logs job/bench \| (.*) > bench\.\w+$", block.text, re.MULTILINE):
        kept = subprocess.run(["sh", "-c", command], input=log, capture_output=True, text=True, check=True).stdout
        json.loads(kept) if "tail" in command else ET.fromstring(kept)  # noqa: S314 - our own drawing
    assert "GB/s" in log
    assert list(node.volume(pod, "models").rglob("*.safetensors")) == []
