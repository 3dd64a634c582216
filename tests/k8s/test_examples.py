"""Each manifest against the schemas of Kubernetes, and what no schema asks for: Pod Security, limits, pinned images."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from examples import (
    CHECKOUT,
    EXAMPLES,
    PRIVILEGED,
    VARIANTS,
    Pod,
    find_namespace,
    find_owner,
    load_objects,
    load_pods,
)
from fastload import errors
from fastload.ops.bench.verdict import reckon_start
from pages import find_blocks

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
GUESTS = {variant for variant in VARIANTS if variant in {"fill", "bench"} or variant.endswith("/bench")}
"""They go into a namespace that another one makes."""
OWNERS = {"Job", "Deployment", "DaemonSet"}
PODS = [pod for variant in VARIANTS for pod in load_pods(variant)]
SERVING = [pod for pod in PODS if pod.kind == "Deployment"]
_WEIGHT_BYTES = {"8B": 16e9}
"""In BF16."""
JOBS = [pod for pod in PODS if pod.kind == "Job"]


def _name(pod: Pod) -> str:
    return f"{pod.variant}-{pod.name}"


each_pod = pytest.mark.parametrize("pod", PODS, ids=_name)
each_serving = pytest.mark.parametrize("pod", SERVING, ids=_name)
each_host = pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant not in GUESTS])
each_job = pytest.mark.parametrize("pod", JOBS, ids=_name)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schema(version: str) -> None:
    """Strictly: a field that does not exist is an error. Objects that are alike are asked about once."""
    objects = {json.dumps(each, sort_keys=True): each for variant in VARIANTS for each in load_objects(variant)}
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)


def test_only_what_runs_beside_an_example_makes_no_namespace() -> None:
    assert {variant for variant in VARIANTS if find_namespace(variant) is None} == GUESTS


def test_the_schema_would_notice() -> None:
    (namespace, *_) = load_objects("hostpath")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**namespace, "metdata": {}}, "1.37", strict=True)


def test_every_folder_is_tried() -> None:
    folders = {path.parent.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("kustomization.yaml")}
    assert folders == {*VARIANTS, "hybrid-gds", "components/gds"}
    for folder in folders:
        assert any((path / "README.md").exists() for path in (EXAMPLES / folder, (EXAMPLES / folder).parent))


needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def _build(folder: str) -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(EXAMPLES / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return list(yaml.safe_load_all(done.stdout))


@needs_kubectl
@pytest.mark.parametrize("folder", [*VARIANTS, "hybrid-gds"])
def test_kustomize_builds_it(folder: str) -> None:
    for each in _build(folder):
        kubernetes_validate.validate(each, "1.37", strict=True)
        assert each["kind"] in {"Namespace", "StorageClass", "PersistentVolume"} or (
            each["metadata"]["namespace"] == "models"
        )


@needs_kubectl
@pytest.mark.parametrize("variant", VARIANTS)
def test_kustomize_builds_the_pods_that_are_tested(variant: str) -> None:
    """Patches and folders of others among them."""
    built = {each["metadata"]["name"]: each["spec"] for each in _build(variant) if each["kind"] in OWNERS}
    assert built == {pod.name: pod.owner for pod in load_pods(variant)}


@needs_kubectl
def test_hybrid_with_gds_is_hybrid_and_what_gds_needs() -> None:
    built = {each["kind"]: each for each in _build("hybrid-gds")}
    for version, each in itertools.product(VERSIONS, built.values()):
        kubernetes_validate.validate(each, version, strict=True)
    assert set(built["Namespace"]["metadata"]["labels"].values()) >= {"privileged"}
    before = next(pod for pod in load_pods("hybrid") if pod.kind == "Deployment")
    owner = built["Deployment"]["spec"]
    pod = Pod("hybrid-gds", "Deployment", "llama-8b", owner, owner["template"]["spec"])
    test_a_pod_may_nothing(pod)
    test_a_pod_says_what_it_takes(pod)
    added = {"udev": "/run/udev", "nvidia-fs": "/dev/nvidia-fs0"}
    mounts = {each["name"]: each for each in pod.container("vllm")["volumeMounts"]}
    assert {name: mounts[name]["mountPath"] for name in added} == added
    assert [each for name, each in mounts.items() if name not in added] == before.container("vllm")["volumeMounts"]
    assert pod.containers[:-1] == before.containers[:-1]
    assert {name: pod.volumes[name] for name in before.volumes} == before.volumes
    assert {pod.volumes[name]["hostPath"]["path"] for name in added} == set(added.values())


_LABELS = {
    "nvidia.com/gpu.present": "the GPU operator sets it",
    "topology.kubernetes.io/zone": "the cloud provider sets it",
    "example.com/gpudirect-storage": "the reader sets it, as the component's README says",
}


def test_who_sets_the_labels_by_which_nodes_are_chosen_is_known() -> None:
    gds = yaml.safe_load((EXAMPLES / "components/gds/serve.yaml").read_text())["spec"]["template"]["spec"]
    chosen = {key for pod in PODS for key in pod.spec.get("nodeSelector", {})} | set(gds["nodeSelector"])
    assert chosen == set(_LABELS)
    assert (
        "kubectl label node gpu-node-1 example.com/gpudirect-storage=true"
        in (EXAMPLES / "components/gds/README.md").read_text()
    )


def test_what_shares_a_volume_of_one_node_is_on_that_node() -> None:
    """Else each could wait for ever for the volume that the other one's node holds."""
    pods = {pod.name: pod for pod in load_pods("rwo-pvc")}
    (term,) = pods["download"].spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"] == pods["llama-8b"].owner["selector"]
    (bench,) = load_pods("rwo-pvc/bench")
    for field in ("tolerations", "nodeSelector"):
        assert pods["download"].spec[field] == pods["llama-8b"].spec[field] == bench.spec[field]
    assert pods["llama-8b"].containers[0]["name"] == "wait"


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_namespace_has_the_level_that_holds(variant: str) -> None:
    """Both other levels, baseline and restricted, forbid hostPath; nothing else here is forbidden."""
    level = "privileged" if find_owner(variant) in PRIVILEGED else "restricted"
    if variant not in GUESTS:
        namespace = find_namespace(variant)
        assert namespace is not None
        labels = namespace["metadata"]["labels"]
        assert {labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "warn", "audit")} == {level}
    kinds = {kind for pod in load_pods(variant) for volume in pod.spec["volumes"] for kind in volume if kind != "name"}
    assert ("hostPath" in kinds) == (level == "privileged")
    assert kinds <= {"hostPath", "persistentVolumeClaim", "emptyDir", "configMap"}


def _named_beside(folder: str) -> set[str]:
    """The other examples that the README of one leads to: what a reader may well apply beside it."""
    readme = (EXAMPLES / find_owner(folder) / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    there = {(EXAMPLES / find_owner(folder) / link.removesuffix("README.md")).resolve() for link in links}
    return {path.relative_to(EXAMPLES).as_posix() for path in there if path.is_relative_to(EXAMPLES)} & set(VARIANTS)


@each_host
def test_what_a_readme_puts_together_agrees_on_the_namespace(variant: str) -> None:
    """Whoever is applied last gives the namespace its labels, and the pods of the other may be refused from then on."""
    for other in _named_beside(variant):
        assert find_namespace(other) in (None, find_namespace(variant)), other


@each_pod
def test_a_claim_that_is_mounted_is_made_or_said_to_be_the_readers(pod: Pod) -> None:
    """Else the pod is Pending for ever."""
    objects = load_objects(find_owner(pod.variant))
    made = {each["metadata"]["name"] for each in objects if each["kind"] == "PersistentVolumeClaim"}
    claims = [volume["persistentVolumeClaim"] for volume in pod.spec["volumes"] if "persistentVolumeClaim" in volume]
    readme = EXAMPLES / find_owner(pod.variant) / "README.md"
    for claim in claims:
        assert claim["claimName"] in made or f"claim `{claim['claimName']}`" in readme.read_text()


def _commands(variant: str) -> list[str]:
    """What its README has the reader type, line by line, in order."""
    blocks = find_blocks(f"examples/k8s/{find_owner(variant)}/README.md")
    return [line for block in blocks if block.language == "sh" for line in block.text.splitlines()]


@each_host
def test_the_namespace_is_there_before_something_is_put_into_it(variant: str) -> None:
    """``kubectl create`` into one that is not there fails: namespaces "models" not found."""
    commands = _commands(variant)
    applied = min(commands.index(each) for each in _applies(variant) if each in commands)
    assert applied < min(_positions(commands, r"kubectl (-n|--namespace) "), default=len(commands))


@each_host
def test_a_secret_is_there_before_what_asks_for_it(variant: str) -> None:
    commands = _commands(variant)
    whole = commands.index(f"kubectl apply -k examples/k8s/{variant}")
    assert max(_positions(commands, "create secret"), default=-1) < whole


def _applies(variant: str) -> tuple[str, str]:
    """Each makes the namespace."""
    there = f"examples/k8s/{variant}"
    return f"kubectl apply -f {there}/namespace.yaml", f"kubectl apply -k {there}"


def _positions(commands: list[str], pattern: str) -> list[int]:
    return [number for number, line in enumerate(commands) if re.search(pattern, line)]


@each_host
def test_a_secret_that_is_asked_for_is_made(variant: str) -> None:
    """By the README, since no file has it."""
    asked = {
        (each["valueFrom"]["secretKeyRef"]["name"], each["valueFrom"]["secretKeyRef"]["key"])
        for pod in load_pods(variant)
        for container in pod.containers
        for each in container.get("env", [])
        if "secretKeyRef" in each.get("valueFrom", {})
    }
    created = [line for line in _commands(variant) if "create secret" in line]
    made = {re.sub(r".* generic ([\w-]+) --from-literal=(\w+)=.*", r"\1 \2", line) for line in created}
    assert made == {" ".join(each) for each in asked}


@each_serving
def test_who_reads_what_a_job_brings_waits_for_it(pod: Pod) -> None:
    """Else each replica, and its GPU, fails again and again until the Job is done."""
    jobs = [each for each in load_pods(pod.variant) if each.kind == "Job"]
    first = pod.containers[0]
    assert (first["name"] == "wait") == bool(jobs)
    if jobs:
        assert "fastload resolve" in first["args"][0]
        assert all(mount.get("readOnly") or mount["name"] == "tmp" for mount in first["volumeMounts"])


@each_pod
def test_a_pod_may_nothing(pod: Pod) -> None:
    context = pod.spec["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["fsGroupChangePolicy"] == "OnRootMismatch"
    assert pod.spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
    for container in pod.containers:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}


@each_pod
def test_a_pod_says_what_it_takes(pod: Pod) -> None:
    for container in pod.containers:
        resources = container["resources"]
        assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["requests"])
        assert {"memory", "ephemeral-storage"} <= set(resources["limits"])
    memory = [v["emptyDir"] for v in pod.spec["volumes"] if "emptyDir" in v]
    assert all("sizeLimit" in each for each in memory)
    disk = sum(_bytes(each["sizeLimit"]) for each in memory if each.get("medium") != "Memory")
    # Init containers are over when the others run.
    assert disk <= sum(_bytes(c["resources"]["limits"]["ephemeral-storage"]) for c in pod.spec["containers"])


@each_pod
def test_a_node_with_gpus_may_run_it(pod: Pod) -> None:
    """Its volume may be on that node alone."""
    assert any(each["key"] == "nvidia.com/gpu" for each in pod.spec["tolerations"])


@each_pod
def test_a_file_that_a_readme_names_is_there(pod: Pod) -> None:
    for path in re.findall(r"kubectl apply -[fk] (\S+)", "\n".join(_commands(pod.variant))):
        assert (CHECKOUT / path).exists()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_images_that_are_named_to_be_changed_are_those_that_run(variant: str) -> None:
    named = yaml.safe_load((EXAMPLES / variant / "kustomization.yaml").read_text()).get("images", [])
    running = {each["image"] for pod in load_pods(variant) for each in pod.containers}
    assert {f"{each['name']}:{each['newTag']}" for each in named} in (set(), running)


@each_pod
def test_images_are_pinned_and_nothing_is_installed_at_run_time(pod: Pod) -> None:
    for container in pod.containers:
        assert re.fullmatch(r"registry\.example\.com/[a-z/-]+:v?\d[\w.-]+", container["image"])
        words = " ".join([*container["command"], *container.get("args", [])])
        assert "pip install" not in words and "curl" not in words
        model = next((e["value"] for e in container.get("env", []) if e["name"] == "MODEL"), None)
        assert model is None or re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", model)


def test_the_vllm_that_is_pinned_is_the_newest_that_the_tests_run_in() -> None:
    """And each page that pins it says so, and what has not been run."""
    (tested,) = re.findall(r"make_venv\.sh \$\(VLLM\) (\d+\.\d+\.\d+)", (CHECKOUT / "Makefile").read_text())
    for pod in SERVING:
        tag = pod.container("vllm")["image"].rpartition(":")[2]
        assert tag.removeprefix("v").partition("-")[0] == tested
    assert f"FROM vllm/vllm-openai:v{tested}\n" in (CHECKOUT / "examples/docker/vllm.Dockerfile").read_text()
    for page in ("examples/k8s/README.md", "docs/kubernetes.md"):
        assert f"vLLM is pinned to {tested}, the newest" in (CHECKOUT / page).read_text()


@each_serving
def test_a_serving_pod_reads_only_and_asks_nobody(pod: Pod) -> None:
    vllm = pod.container("vllm")
    environment = {each["name"]: each["value"] for each in vllm["env"]}
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["FASTLOAD_TIERS"] == "local,shared"
    assert "HF_TOKEN" not in environment
    assert "--load-format" in vllm["args"] and "fastload" in vllm["args"]
    kinds = {name: volume for name, volume in pod.volumes.items() if "emptyDir" not in volume or name == "plugin"}
    for mount in vllm["volumeMounts"]:
        assert mount.get("readOnly", False) == (mount["name"] in kinds)
    (shm,) = (mount["name"] for mount in vllm["volumeMounts"] if mount["mountPath"] == "/dev/shm")
    assert pod.volumes[shm]["emptyDir"]["medium"] == "Memory"
    assert _bytes(vllm["resources"]["limits"]["memory"]) > 2 * _bytes(pod.volumes[shm]["emptyDir"]["sizeLimit"])
    writable = tuple(mount["mountPath"] for mount in vllm["volumeMounts"] if not mount.get("readOnly"))
    for name, value in environment.items():
        if name.endswith(("_DIR", "_ROOT", "_HOME", "_BASE")) or name in {"HOME", "TMPDIR"}:
            assert value.startswith(writable), name
    assert {"startupProbe", "readinessProbe"} <= set(vllm)
    assert any(t["key"] == "nvidia.com/gpu" for t in pod.spec["tolerations"])


@each_serving
def test_the_startup_probe_is_what_bench_would_print(pod: Pod) -> None:
    """For the size of the model that the manifest names, and the GB/s that it assumes; its README shows the sum."""
    text = (EXAMPLES / pod.variant / "serve.yaml").read_text()
    (said,) = re.findall(r"# .*: (3 x (?:(\d+) x )?(\d+) GB / ([\d.]+) GB/s \+ 180 s = (\d+) s), in periods", text)
    whole, replicas, gigabytes, gb_per_s, seconds = said
    environment = {each["name"]: each["value"] for each in pod.container("vllm")["env"]}
    (size,) = re.findall(r"-(\d+B)-", environment["MODEL"])
    loads = int(replicas or 1)
    assert float(gigabytes) * 1e9 == _WEIGHT_BYTES[size] and loads == pod.owner["replicas"]
    start = reckon_start(size, loads * _WEIGHT_BYTES[size], float(gb_per_s) * 1e9)
    probe = pod.container("vllm")["startupProbe"]
    assert (probe["failureThreshold"], probe["periodSeconds"]) == (start.failure_threshold, 10)
    assert 10 * (start.failure_threshold - 1) < int(seconds) <= 10 * start.failure_threshold
    readme = (EXAMPLES / pod.variant / "README.md").read_text()
    assert whole in readme and f"`failureThreshold: {probe['failureThreshold']}`" in readme and "bench" in readme


@each_serving
def test_a_rollout_cannot_wait_for_itself(pod: Pod) -> None:
    """A GPU, or a volume of one node, is not there twice: the old pod goes first."""
    strategy = pod.owner["strategy"]
    surges = strategy["type"] == "RollingUpdate" and strategy["rollingUpdate"]["maxSurge"] != 0
    assert not surges
    if pod.owner["replicas"] == 1:
        assert strategy == {"type": "Recreate"}


@each_serving
def test_models_lie_at_the_same_place_for_who_brings_and_who_reads(pod: Pod) -> None:
    places = [
        {
            mount["name"]: mount["mountPath"]
            for mount in container["volumeMounts"]
            if mount["name"] in ("models", "shared")
        }
        for container in pod.containers
        if container["name"] in {"warm", "wait", "vllm"}
    ]
    assert all(place == places[0] for place in places)
    where = [
        {e["name"]: e["value"] for e in c["env"] if e["name"] in ("MODEL", "FASTLOAD_LOCAL")}
        for c in pod.containers
        if c["name"] in {"warm", "wait", "vllm"}
    ]
    assert all(each == where[0] for each in where)


@each_job
def test_a_job_ends(pod: Pod) -> None:
    """Also by our exit codes: those that more attempts cannot cure end it at once, and none of the others do."""
    job = pod.owner
    assert job["activeDeadlineSeconds"] and job["backoffLimit"] and job["ttlSecondsAfterFinished"]
    assert pod.spec["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    ignore, fail = job["podFailurePolicy"]["rules"]
    assert ignore["action"] == "Ignore" and ignore["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"]["containerName"] == pod.name
    codes = set(fail["onExitCodes"]["values"])
    for error in (errors.NetworkError, errors.LockTimeoutError, errors.DeadlineError, errors.NoSpaceError):
        assert error.exit_code not in codes
    for kind in (errors.UsageError, errors.AuthError, errors.ModelNotFoundError, errors.IntegrityError):
        assert kind.exit_code in codes
    for other in (errors.FormatError, errors.SignatureError, errors.UnsupportedError, errors.NotWritableError):
        assert other.exit_code in codes
    page = (CHECKOUT / "docs" / "troubleshooting.md").read_text()
    again = {int(code): last for code, last in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", page, re.MULTILINE)}
    assert {code for code, last in again.items() if last == "no"} - {130, 143} <= codes
    assert not codes & {code for code, last in again.items() if last == "yes"}
    assert fail["onExitCodes"]["values"] == sorted(codes)  # as the API server asks for


def test_a_deadline_of_ours_comes_before_the_jobs() -> None:
    for pod in JOBS:
        (container,) = pod.containers
        minutes = [each["value"] for each in container["env"] if each["name"] == "FASTLOAD_DEADLINE"]
        assert all(int(text.removesuffix("m")) * 60 < pod.owner["activeDeadlineSeconds"] for text in minutes)


def _bytes(quantity: Any) -> int:
    match = re.fullmatch(r"(\d+)(Ki|Mi|Gi|Ti)", str(quantity))
    assert match
    return int(match[1]) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[match[2]]
