"""``transfer="hub"``: huggingface_hub brings the files, by whatever way it has (Xet, for one); fastload checks them.

For hubs whose storage only their own client speaks to. It costs a second write of every byte: a file comes whole into
a scratch folder, and is read from there as from a mount. What was read is removed, so that the scratch is never larger
than :data:`SCRATCH_FILES`.
"""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import closing
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround
from fastload._read.file import identify
from fastload._read.pread import BufferedReader
from fastload._read.reader import PlainFile
from fastload._store.filesystem import is_no_space, translate_write
from fastload._store.hub.access import find_token
from fastload._store.hub.redacting import redacting, said
from fastload._store.offer import OfferAround
from fastload.errors import AuthError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.reader import Reader
    from fastload._store.offer import Offer, OfferedFile

SCRATCH_FILES = 2
"""The one under way, and one before it of which the end is still read: those who read it are as many."""


class ClientOffer(OfferAround):
    """What ``offer`` has, brought by the hub's own client; see :class:`~fastload._store.offer.Offer`."""

    def __init__(self, offer: Offer, endpoint: str, scratch: str, token: str | None = None) -> None:
        """``offer`` is the hub's. ``scratch`` is made when the first file is asked for; :meth:`close` removes it.

        ``token`` is as :class:`~fastload._store.hub.access.HubAccess` has it.
        """
        super().__init__(offer)
        self.depth = 2
        self._endpoint = endpoint
        self._token = token
        self._scratch = scratch
        self._lock = threading.Lock()  # one file at a time: the client itself asks for it in pieces

    def open(self, file: OfferedFile) -> Reader:
        """Bring ``file`` whole, and read it from where it lies.

        Raises:
            AuthError, NetworkError: the client does not get it.
            NoSpaceError, StoreError: it cannot be written.
        """
        with self._lock:
            path = self._download(file)
        return _Scratched(BufferedReader(PlainFile(path, identify(os.stat(path)))), path)

    def _download(self, file: OfferedFile) -> str:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - takes 0.2 s, only where it is asked for
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError  # noqa: PLC0415

        http_error: type[Exception] = HfHubHTTPError.__bases__[0]  # of httpx in 1.x, of httpx2 in 2.x
        url = f"{self._endpoint}/{self.repo}/resolve/{self.commit}/{file.path}"
        try:
            with redacting():
                return hf_hub_download(
                    self.repo,
                    file.path,
                    revision=self.commit,
                    local_dir=self._scratch,
                    endpoint=self._endpoint,
                    token=(find_token(self._endpoint) if self._token is None else self._token) or False,
                )
        except GatedRepoError as exc:
            hint = f"Accept its terms at {self._endpoint}/{self.repo}, with the account of the token"
            raise AuthError(url, "huggingface_hub was refused: the model is gated", hint) from said(exc)
        except (OSError, ValueError, RuntimeError, http_error) as exc:
            if isinstance(exc, OSError) and is_no_space(exc):
                raise translate_write(self._scratch, exc) from exc
            reason = f"huggingface_hub did not bring it ({type(exc).__name__})"
            raise NetworkError(url, reason, "Try again, or let fastload bring it: transfer=ranged") from said(exc)

    def close(self) -> None:
        """Remove what is left of the scratch folder."""
        shutil.rmtree(self._scratch, ignore_errors=True)


class _Scratched(ReaderAround):
    """Reads a scratch file, and removes it: a wrapper with the reader's own protocol."""

    name = "hub"

    def __init__(self, reader: BufferedReader, path: str) -> None:
        super().__init__(reader)
        self._path = path

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.read_into(offset, buffers)

    def check_path(self) -> None:
        """Nobody else knows the path."""

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        with closing(self._reader):
            os.unlink(self._path)
