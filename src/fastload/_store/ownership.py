"""The command that lets this user write to a place, and gives away nothing that is not fastload's.

Whoever follows it may be root: ``chown -R`` of the nearest folder that happens to exist could be one of ``/``. The
command stands at the end, where it can be pasted as it is.
"""

from __future__ import annotations

import os
import re
import shlex
import stat

_IN_A_TIER = re.compile(r"(?P<folder>/.+?)/(?:models--[^/]+|\.locks|\.fastload)(?:/.*)?", re.DOTALL)


def own_folder(path: str) -> str | None:
    """The folder of the tier, or of the plain model, that ``path`` lies in; None: by its name alone, in none."""
    match = _IN_A_TIER.fullmatch(path)
    return match["folder"] if match else None


def cure_folder(folder: str) -> str:
    """How this user gets to write in a folder that is fastload's own, be it there or not yet."""
    uid, gid, quoted = os.geteuid(), os.getegid(), shlex.quote(folder)
    other = f"Name a folder that uid {uid} may write (for the local tier: FASTLOAD_LOCAL)"
    if folder == "/":
        return other
    if _is_shut_by_its_owner(folder):
        return _open_up(folder)
    if os.path.lexists(folder):
        command = f"chown -R {uid}:{gid} {quoted}"
    else:
        command = f"mkdir -p {quoted} && chown {uid}:{gid} {quoted}"
    return f"{other}; in Kubernetes: securityContext: {{fsGroup: {gid}}}; or, as root: {command}"


def _is_shut_by_its_owner(folder: str) -> bool:
    """True if this user owns the folder already, and has only to allow himself to write in it."""
    try:
        status = os.stat(folder)
    except OSError:
        return False
    is_own_folder = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return is_own_folder and status.st_mode & stat.S_IRWXU != stat.S_IRWXU


def _open_up(folder: str) -> str:
    return f"It is this user's own (look at the umask under which it was made): chmod u+rwx {shlex.quote(folder)}"


def cure_path(path: str, nearest: str, *, is_folder: bool) -> str:
    """How this user gets to write ``path``, of which ``nearest`` is there.

    Args:
        path: absolute; by its name in a tier, or in a plain model, or neither.
        nearest: itself, or what above it exists.
        is_folder: it was to be made, as a folder of ours.
    """
    if _is_shut_by_its_owner(nearest):
        return _open_up(nearest)
    own = own_folder(path) or (path if is_folder else None)
    if own is None:
        return f"Let uid {os.geteuid()} write in {nearest!r}, or name another place"
    return cure_folder(nearest if nearest.startswith(own + "/") else own)
