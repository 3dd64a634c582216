"""The public functions that need no torch: keywords become a request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.deadline import Deadline
from fastload._fetch.find import resolve as resolving
from fastload._fetch.warm import warm as warming
from fastload._fetch.warm.request import WarmRequest
from fastload._progress import checked
from fastload._store.ref import name_of
from fastload._store.wanted import parse_wish
from fastload.options import Options, decide_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._fetch.find.resolve import Snapshot
    from fastload._progress import Callback


def resolve(model: str | os.PathLike[str], *, revision: str | None = None, options: Options | None = None) -> Snapshot:
    """Where ``model`` is: the first allowed tier that has it complete. Fetches nothing and asks no network.

    Args:
        model: a path, an alias, ``org/name``, ``org/name@revision``, or a folder's name on a tier.
        revision: a branch, tag or commit, where the name does not say one.
        options: settings.

    Raises:
        ModelNotFoundError: no tier that is a folder has it complete; lists where it was looked for, what is there
            incomplete, and the nearest names.
        FormatError: at the path there is no checkpoint, or a shard of it is not whole.
        StoreError: it cannot be read.
        UsageError: it is no name and no path.
        DeadlineError: the setting ``deadline`` is over.
    """
    settings = decide_settings(options, {})
    deadline = Deadline(settings.deadline, f"resolving {name_of(model)}")
    return deadline.within(lambda: resolving.resolve(model, revision, settings))


def warm(  # noqa: PLR0913 - the public signature; all but the model go by keyword
    model: str | os.PathLike[str],
    *,
    to: str | os.PathLike[str] | None = "local",
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    revision: str | None = None,
    progress: bool | Callback | None = None,
    options: Options | None = None,
) -> Snapshot:
    """Bring ``model`` up to a tier, verified; does nothing where it is there. May be interrupted and run again.

    The hub is asked once what a moving name means; where it cannot be reached, what is there serves, with a warning.

    Args:
        model: as for :func:`resolve`; a folder given by path is brought as ``models--<its name>``.
        to: ``local``, ``shared`` (the first one), or the absolute root of a cache; None: ``local``.
        include: globs of paths to bring besides safetensors, configs and tokenizer, such as ``*.gguf``.
        exclude: globs of paths to leave out.
        revision: a branch, tag or commit, where the name does not say one.
        progress: as for :func:`fastload.load`.
        options: settings.

    Raises:
        ModelNotFoundError: no tier has it.
        NetworkError: only the hub could have it, and could not be reached.
        AuthError: the hub wants a token, refuses the one it got, or the model is gated.
        IntegrityError: a file is not what its digest says, and came wrong twice; or it is not what was signed.
        SignatureError: ``signature_key`` is set, and its holder has not signed what would be brought, or is there.
        UnsupportedError: it is signed by a certificate.
        FormatError: there are no weights among what was asked for.
        NoSpaceError, NotWritableError: the target cannot take it.
        LockTimeoutError: somebody else brings it, lives, and gets nowhere.
        UsageError: an argument or setting that cannot be meant.
        DeadlineError: the setting ``deadline`` is over.
    """
    request = WarmRequest(
        model=model,
        revision=revision,
        to=_written_to(to),
        wish=parse_wish(include, exclude),
        progress=checked(progress),
    )
    return warming.warm(request, decide_settings(options, {}))


def _written_to(to: str | os.PathLike[str] | None) -> str:
    return "local" if to is None else os.fspath(to) if isinstance(to, os.PathLike) else to
