"""The examples for Kubernetes as data: every object, every pod and every container in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples" / "k8s"
VARIANTS = (
    *("hostpath", "local-pv", "rwo-pvc", "rwx-pvc", "hybrid", "daemonset", "air-gapped", "fill", "bench"),
    *("hostpath/bench", "rwo-pvc/bench", "rwx-pvc/bench", "hybrid/bench"),
)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where it is: every process that runs tests reads all examples, to know which tests there are."""
PRIVILEGED = frozenset({"hostpath", "daemonset"})
"""Those with hostPath volumes."""


@dataclass(frozen=True)
class Pod:
    """What a Job, a Deployment or a DaemonSet makes."""

    variant: str
    kind: str
    name: str
    owner: dict[str, Any]
    """The object's spec."""
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Init containers first, in their order."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        """By name."""
        return {volume["name"]: volume for volume in self.spec["volumes"]}

    def container(self, name: str) -> dict[str, Any]:
        """The one of that name."""
        return next(each for each in self.containers if each["name"] == name)


def load_objects(variant: str) -> list[dict[str, Any]]:
    """The objects that the folder's kustomization names, in its order, those of other folders among them."""
    folder = EXAMPLES / variant
    (kustomization,) = _parse((folder / "kustomization.yaml").read_text())
    objects = [found for name in kustomization["resources"] for found in _load(folder / name)]
    for patch in kustomization.get("patches", []):
        (target,) = (each for each in objects if each["kind"] == patch["target"]["kind"])
        for operation in yaml.safe_load(patch["patch"]):
            _put(target, operation["path"].split("/")[1:], operation["value"])
    return objects


def _load(path: Path) -> list[dict[str, Any]]:
    if path.is_dir():
        return load_objects(path.resolve().relative_to(EXAMPLES).as_posix())
    return _parse(path.read_text())


def _parse(text: str) -> list[dict[str, Any]]:
    return list(yaml.load_all(text, Loader=_LOADER))


def _put(target: Any, steps: list[str], value: object) -> None:
    """What ``add`` and ``replace`` of a JSON patch do to a mapping, or to an item that is there."""
    for step in steps[:-1]:
        target = target[int(step) if isinstance(target, list) else step]
    target[int(steps[-1]) if isinstance(target, list) else steps[-1]] = value


def find_namespace(variant: str) -> dict[str, Any] | None:
    """The Namespace that it makes; None: it goes into one that is there."""
    return next((each for each in load_objects(variant) if each["kind"] == "Namespace"), None)


def load_pods(variant: str) -> list[Pod]:
    """What runs there: Jobs come before Deployments."""
    return list(_find_pods(variant))


def find_owner(variant: str) -> str:
    """The example in whose namespace it runs, and whose claims it mounts: for ``hybrid/bench``, ``hybrid``."""
    return variant.partition("/")[0]


def list_exports(variant: str) -> set[str]:
    """The claims whose volume is an export of a file server, to which a kubelet applies no fsGroup."""
    objects = load_objects(find_owner(variant))
    exports = {
        each["metadata"]["name"] for each in objects if each["kind"] == "PersistentVolume" and "nfs" in each["spec"]
    }
    claims = (each for each in objects if each["kind"] == "PersistentVolumeClaim")
    return {each["metadata"]["name"] for each in claims if each["spec"].get("volumeName") in exports}


def _find_pods(variant: str) -> Iterator[Pod]:
    for each in load_objects(variant):
        if each["kind"] in {"Job", "Deployment", "DaemonSet"}:
            spec = each["spec"]
            yield Pod(variant, each["kind"], each["metadata"]["name"], spec, spec["template"]["spec"])
