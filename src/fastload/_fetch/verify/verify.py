"""``fastload.verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._fetch.verify.examination import Examination
from fastload._fetch.verify.examine import examine
from fastload._store.wanted import parse_globs
from fastload.options import Options, decide_settings

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from fastload._fetch.verify.verification import Verification


def verify(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    repair: bool = False,
    record: bool = False,
    include: str | Sequence[str] = (),
    options: Options | None = None,
) -> Verification:
    """Check all that is stored of ``model``, where it is.

    Args:
        model: as for :func:`fastload.resolve`; what is incomplete can be checked too.
        revision: as for :func:`fastload.resolve`.
        repair: mend what is wrong, from other tiers: by block where blocks are known, else by file.
        record: write a manifest where there is none, so that loads prove blocks in parallel; of a recorded folder that
            was changed on purpose, a new one.
        include: globs of paths; only these are checked.
        options: settings.

    Raises:
        FormatError: a folder has no weights, or a name that no manifest can hold.
        IntegrityError: something is not what it should be and was not mended; ``.findings`` has all of it. Or the
            setting ``verify`` is ``require``, and nothing is known of what is there.
        ModelNotFoundError: no folder has anything of it.
        SignatureError: ``signature_key`` is set, and its holder has not signed what is there.
        StoreError: it cannot be read; or a manifest, or what was mended, cannot be written, with ``.findings`` too.
        UsageError: a glob matches nothing, or a part shall be recorded.
        DeadlineError: the setting ``deadline`` is over.
    """
    wish = Examination(
        model, revision, repairs=repair, records=record, include=parse_globs("include", include)
    )  # fmt: skip
    found = examine(wish, decide_settings(options, {}))
    found.check()
    return found
