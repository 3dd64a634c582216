"""What to do where the system grants no descriptor, be it for a file that is read or written, or a connection."""

from __future__ import annotations

import errno

DESCRIPTOR_HINTS = {
    errno.EMFILE: "Raise this process's limit of open files: ulimit -n 4096",
    errno.ENFILE: "The machine has run out of file descriptors: raise fs.file-max",
}
"""By the system's error."""
