"""What a process still holds after many loads: no more than after the first few."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from arena import REPO, model_files
from results import Row
from stored_models import COMMIT, write_cache
from warming import Tiers

_OWN_SHM = ("unshare", "--map-root-user", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh")


def why_none() -> str | None:
    """Why no process can have a /dev/shm of its own here, where others' files come and go."""
    try:
        done = subprocess.run([*_OWN_SHM, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no unshare: {error}"
    return f"no mount namespace of one's own: {done.stderr}" if done.returncode else None


def count_leaks(folder: Path, count: int) -> Row:
    """``count`` loads of all kinds, a quarter of which fail."""
    row = Row("loads in one process, a quarter of them failing: threads, descriptors, /dev/shm, temporary files")
    tiers = Tiers(folder)
    write_cache(tiers.shared, REPO, COMMIT, model_files())
    tiers.warm(REPO)
    (folder / "temporary").mkdir()
    script = Path(__file__).parent / "leaking.py"
    done = subprocess.run(
        [*_OWN_SHM, sys.executable, str(script), str(folder), str(count)],
        env=tiers.environment | {"TMPDIR": str(folder / "temporary")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        row.add("all", f"exit {done.returncode}", done.stderr[-800:])
        return row
    found = json.loads(done.stdout)
    row.cases = sum(found["ends"].values())
    row.ends.update(found["ends"])
    for what, before in found["before"].items():
        if found["after"][what] != before:
            row.wrong.append(f"{what}: {before} before, {found['after'][what]} after")
    return row
