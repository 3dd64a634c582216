"""What the link of a cached file says of it: it leads to a blob, and blobs are called by a digest.

Each answer takes one look, since somebody may mend the link meanwhile.
"""

from __future__ import annotations

import os

from fastload._store.listing import with_digest
from fastload._store.offer import OfferedFile


def link_target(path: str) -> str | None:
    """Where the link at ``path`` leads, as it says it; None where no link is."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def blob_behind(path: str) -> str | None:
    """What the blob is called that the link at ``path`` leads to; None where no link is."""
    target = link_target(path)
    return None if target is None else os.path.basename(target)


def with_blob_name(folder: str, file: OfferedFile) -> OfferedFile:
    """``file`` with the digest by which its link in ``folder`` calls it; itself where it is no link, or says none."""
    name = blob_behind(os.path.join(folder, file.path))
    return file if name is None else with_digest(file, name)


def by_link_alone(folder: str, path: str) -> OfferedFile:
    """Of the file at ``path`` in ``folder`` what its link says, and nothing else that may be known of it."""
    return with_blob_name(folder, OfferedFile(path=path, size=0))
