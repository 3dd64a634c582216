"""What a kubelet does with a container, as far as fastload can tell: environment, user, read-only root, mounts.

A mount namespace with a read-only overlay of this machine's root, in which volumes with real owners are mounted; there,
by chroot and setpriv, the command with the uid, the groups and no capabilities. The network is this machine's, so that
a loopback hub can be asked. Nothing of ours is replaced.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from examples import CHECKOUT, list_exports

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from examples import Pod

_GROUPS = stat.S_ISGID | stat.S_IRWXG
"""What a folder given to a group has, so that what is made in it is the group's too."""
_REFERENCE = re.compile(r"\$\((\w+)\)")
_SETUP = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
root=$SCRATCH/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" "$root"
chmod a+x "$root/root"
mount --rbind /proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root/dev/shm"
for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
touch "$root/dev/termination-log"
mount --bind "$TERMINATION_LOG" "$root/dev/termination-log"
while read -r mode source target; do
    mkdir -p "$root$target"
    mount --bind "$source" "$root$target"
    if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root$target"; fi
done < "$MOUNTS"
# Where a volume hides this checkout or its Python, as one at /tmp may; another container of the pod leaves the folder.
for path in "$CHECKOUT" "$PREFIX" "$BASE"; do
    if [ -z "$(ls -A "$root$path" 2>/dev/null)" ]; then mkdir -p "$root$path"; mount --bind "$path" "$root$path"; fi
done
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid "$RUN_AS" --regid "$RUN_AS_GROUP" --groups "$GROUPS_OF" \
    --bounding-set=-all --inh-caps=-all --no-new-privs env -i -C / "$@"
"""


@dataclass
class Node:
    """One node: its disk, and the claims that pods on it share.

    Args:
        folder: where all of it is.
        replaced: instead of what a manifest says, since it names what is not here: a hub, a secret.
        image: folders that images have and this machine has not, by where they are there.
    """

    folder: Path
    replaced: Mapping[str, str]
    image: Mapping[str, Path] = field(default_factory=dict)
    termination_log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.termination_log = self.folder / "termination-log"
        self.termination_log.touch()
        self.termination_log.chmod(0o666)

    def claim(self, name: str) -> Path:
        """The volume of a PersistentVolumeClaim, as a provisioner makes it: root's."""
        path = self.folder / f"claim-{name}"
        path.mkdir(exist_ok=True)
        return path

    def export(self, name: str, uid: int = 1000) -> Path:
        """The volume of a claim that a file server exports, given to ``uid`` there; it is a folder, and no NFS."""
        path = self.folder / f"export-{name}"
        if not path.exists():
            path.mkdir()
            os.chown(path, uid, uid)
        return path

    def host(self, path: str) -> Path:
        """A folder of the node itself, which an administrator has made for uid 1000, as the README says."""
        there = self.folder / f"host{path.replace('/', '-')}"
        if not there.exists():
            there.mkdir()
            os.chown(there, 1000, 1000)
        return there

    def volume(self, pod: Pod, name: str) -> Path:
        """What lies below one volume of a pod."""
        volume = pod.volumes[name]
        if "persistentVolumeClaim" in volume:
            name = volume["persistentVolumeClaim"]["claimName"]
            if name in list_exports(pod.variant):
                return self.export(name)
            there = self.claim(name)
            return there if volume["persistentVolumeClaim"].get("readOnly") else self._give(there, pod)
        if "hostPath" in volume:
            return self.host(volume["hostPath"]["path"])  # fsGroup does nothing for it
        there = self.folder / f"{pod.name}-{name}"
        there.mkdir(exist_ok=True)
        if "emptyDir" in volume:
            there.chmod(0o777)
            return self._give(there, pod)
        return there

    @staticmethod
    def _give(folder: Path, pod: Pod) -> Path:
        """What ``fsGroup`` with ``OnRootMismatch`` does to a block volume, a local one, an emptyDir or a ConfigMap.

        The folders get the group, all its permissions and setgid, so that what is made in them is the group's too.
        """
        group, found = pod.spec["securityContext"]["fsGroup"], folder.stat()
        if found.st_gid != group or found.st_mode & _GROUPS != _GROUPS:
            for path in (folder, *folder.rglob("*")):
                if not path.is_symlink():
                    os.chown(path, -1, group)
                    path.chmod(path.stat().st_mode | (_GROUPS if path.is_dir() else 0o660))
        return folder

    def start(self, pod: Pod, name: str, *words: str) -> subprocess.Popen[str]:
        """The container; ``words`` instead of its own command."""
        container = pod.container(name)
        environment = self.environment(container)
        command = list(words) or [*container["command"], *container.get("args", [])]
        command = [_REFERENCE.sub(lambda match: environment[match[1]], word) for word in command]
        mounts = self.folder / f"{pod.name}-{name}.mounts"
        lines = [self._mount(pod, mount) for mount in container["volumeMounts"]]
        lines += [f"ro {source} {target}" for target, source in self.image.items()]
        mounts.write_text("".join(f"{line}\n" for line in lines))
        scratch = self.folder / f"{pod.name}-{name}.root"
        scratch.mkdir(exist_ok=True)
        context = pod.spec["securityContext"]
        setup = {
            "SCRATCH": str(scratch),
            "MOUNTS": str(mounts),
            "TERMINATION_LOG": str(self.termination_log),
            "CHECKOUT": str(CHECKOUT),
            "PREFIX": sys.prefix,
            "BASE": sys.base_prefix,
            "RUN_AS": str(context["runAsUser"]),
            "RUN_AS_GROUP": str(context["runAsGroup"]),
            "GROUPS_OF": str(context["fsGroup"]),
            "PATH": os.environ["PATH"],
        }
        given = [f"{key}={value}" for key, value in environment.items()]
        whole = ["unshare", "--mount", "sh", "-c", _SETUP, "sh", *given, *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(whole, stdout=pipe, stderr=pipe, text=True, env=setup)

    def run(self, pod: Pod, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        with self.start(pod, name, *words) as process:
            out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """What the manifest says, what stands for its secrets, and the image's PATH."""
        said = {each["name"]: each.get("value", "from a secret") for each in container.get("env", [])}
        return {"PATH": f"{sys.prefix}/bin:/usr/bin:/bin", **said, **self.replaced}

    def _mount(self, pod: Pod, mount: Mapping[str, Any]) -> str:
        is_read_only = mount.get("readOnly") or pod.volumes[mount["name"]].get("persistentVolumeClaim", {}).get(
            "readOnly"
        )
        return f"{'ro' if is_read_only else 'rw'} {self.volume(pod, mount['name'])} {mount['mountPath']}"


def why_not_here(folder: Path) -> str | None:
    """Why containers cannot be run so on this machine; None: they can."""
    if os.geteuid():
        return "must be root, to become somebody else"
    missing = [tool for tool in ("unshare", "setpriv", "chroot") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    trial = (
        'mount -t tmpfs tmpfs "$0" && mkdir "$0/u" "$0/w" "$0/r" && '
        'mount -t overlay overlay -o "lowerdir=/,upperdir=$0/u,workdir=$0/w" "$0/r"'
    )
    done = subprocess.run(["unshare", "--mount", "sh", "-c", trial, str(folder)], capture_output=True, check=False)
    return f"may not mount here: {done.stderr.decode()}" if done.returncode else None
