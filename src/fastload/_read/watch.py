"""Whether an open file is still the one whose header was read, asked after each extent.

``fstat`` gives up the GIL. Beside a GPU, where sixteen threads read from memory, whoever gives it up has to stand in
line for it again, and that costs more than all else that is done in Python for an extent. Of a file in memory or on a
disk of this machine the kernel answers at once, so there the GIL is kept, and only a difference is looked at closely.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._read.file import check_unchanged, identify, translate
from fastload._read.kernel import LOCAL, MEMORY, file_system, look_briefly

if TYPE_CHECKING:
    from fastload._read.reader import File


class Watch:
    """Over one open descriptor of a file."""

    def __init__(self, file: File, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor
        self._seen = self._look() if file_system(descriptor) in MEMORY | LOCAL else None

    def _look(self) -> bytes | None:
        seen = look_briefly(self._descriptor)
        try:
            now = identify(os.fstat(self._descriptor))
        except OSError:
            return None  # then each check asks anew, and says so
        return seen if now == self._file.identity else None

    def check(self, offset: int) -> None:
        """As :func:`check_descriptor`."""
        if self._seen is None or look_briefly(self._descriptor) != self._seen:
            check_descriptor(self._file, self._descriptor, offset)


def check_descriptor(file: File, descriptor: int, offset: int) -> None:
    """Raise ``IntegrityError`` if the open file has changed since its header was read, ``StoreError`` if it cannot say.

    Removing the file moves its ctime too, but what is open stays whole.
    """
    try:
        status = os.fstat(descriptor)
    except OSError as exc:
        raise translate(file.path, exc) from exc
    now = identify(status)
    if not status.st_nlink:
        now = now._replace(ctime_ns=file.identity.ctime_ns)
    check_unchanged(file.path, offset, file.identity, now)
