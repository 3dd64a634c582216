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
VARIANTS = ("hostpath", "local-pv", "rwo-pvc", "rwx-pvc", "hybrid", "daemonset", "air-gapped", "bench")
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
    """The objects that the folder's kustomization names, in its order."""
    folder = EXAMPLES / variant
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [found for name in names for found in yaml.safe_load_all((folder / name).read_text())]


def load_pods(variant: str) -> list[Pod]:
    """What runs there: Jobs come before Deployments."""
    return list(_find_pods(variant))


def list_exports(variant: str) -> set[str]:
    """The claims whose volume is an export of a file server, to which a kubelet applies no fsGroup."""
    objects = load_objects(variant)
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
