"""Checking all that is stored of a model against the best evidence there is, and mending what can be mended."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fastload._fetch.evidence import MEND_HINT, find_evidence, stored_at
from fastload._fetch.record import digest_file, record_all
from fastload._fetch.repair import Repair
from fastload._fetch.resolve import parse_model, tiers_of
from fastload._read.file import identify, open_regular, read_fully
from fastload._read.proof import Wanted
from fastload._read.reader import PlainFile
from fastload._store.tiered import search
from fastload._store.wanted import matches
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import FormatError, IntegrityError, ModelNotFoundError, StoreError
from fastload.options import Options, decide_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._fetch.evidence import Evidence
    from fastload._store.offer import OfferedFile
    from fastload._store.root import Stored
    from fastload.options import Settings

_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    path: str
    """In the snapshot."""
    block: int | None
    """None: the file as a whole."""
    offset: int
    found: str
    expected: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVerdict:
    """What was found of one file."""

    path: str
    nbytes: int
    evidence: str
    """``blocks``, ``sha256``, ``git-sha1``, or ``none``: nothing is known of it."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found of a snapshot."""

    path: str
    tier: str
    commit: str | None
    evidence: str
    files: tuple[FileVerdict, ...]
    recorded: bool
    """True if a manifest was written."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of all files."""
        return tuple(finding for file in self.files for finding in file.findings)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types, with the number of their schema."""
        return {"schema": 1, **asdict(self)}


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
        repair: mend blocks that are wrong, from other tiers.
        record: write a manifest where there is none, so that loads prove blocks in parallel.
        include: globs of paths; only these are checked.
        options: settings.

    Raises:
        IntegrityError: something is not what it should be and was not mended; ``.findings`` has all of it.
        ModelNotFoundError: no folder has anything of it.
        StoreError: it cannot be read, or a manifest cannot be written.
    """
    settings = decide_settings(options, {})
    stored = _find(model, revision, settings)
    mending = Repair(stored, settings)
    evidence = find_evidence(stored, mending)
    globs = (include,) if isinstance(include, str) else tuple(include)
    names = [name for name in sorted(evidence.files) if not globs or matches(name, globs)]
    check = _Check(evidence, mending if repair else None)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fastload-verify") as pool:
        verdicts = tuple(pool.map(check.check_file, [evidence.files[name] for name in names]))
    mending.mend_stored()
    mending.close()
    bad = [finding for verdict in verdicts for finding in verdict.findings if not finding.repaired]
    recorded = record and not bad and not globs and not evidence.has_blocks and record_all(stored, evidence)
    result = Verification(
        path=stored.folder,
        tier=stored.tier,
        commit=stored.commit,
        evidence=evidence.kind,
        files=verdicts,
        recorded=recorded,
    )
    if bad:
        raise _failure(stored.folder, bad)
    return result


def _find(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> Stored:
    parsed = parse_model(model, revision, settings)
    if isinstance(parsed, str):
        stored = stored_at(parsed)
        if stored is None:
            raise ModelNotFoundError(parsed, (parsed,), "Check the path, and that its volume is mounted")
        return stored
    found = search(parsed, tiers_of(settings))
    there = found.found or next(iter(found.incomplete), None)
    if there is None:
        raise found.miss()
    return there


def _failure(folder: str, bad: Sequence[Finding]) -> IntegrityError:
    first = bad[0]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    path = os.path.join(folder, first.path)
    return IntegrityError(path, first.offset, first.found + more, first.expected, MEND_HINT, findings=tuple(bad))


class _Check:
    """Checks files; each by the best that is known of it."""

    def __init__(self, evidence: Evidence, mending: Repair | None) -> None:
        self._evidence = evidence
        self._mending = mending

    def check_file(self, file: OfferedFile) -> FileVerdict:
        """All that is wrong with one file."""
        path = os.path.join(self._evidence.folder, file.path)
        kind, check = self._choose(file)
        try:
            findings = tuple(check(path, file))
        except (FormatError, StoreError) as exc:
            findings = (_whole(file, str(exc), f"{file.size:,} bytes"),)
        return FileVerdict(path=file.path, nbytes=file.size, evidence=kind, findings=findings)

    def _choose(self, file: OfferedFile) -> tuple[str, Callable[[str, OfferedFile], Iterator[Finding]]]:
        if file.blocks is not None:
            return "blocks", self._check_blocks
        if file.sha256 is not None or file.git_sha1 is not None:
            return "sha256" if file.sha256 else "git-sha1", _check_whole
        return "none", lambda *_: iter(())

    def _check_blocks(self, path: str, file: OfferedFile) -> Iterator[Finding]:
        descriptor = open_regular(path)
        try:
            identity = identify(os.fstat(descriptor))
            if identity.size != file.size:
                yield _whole(file, f"{identity.size:,} bytes", f"{file.size:,} bytes")
                return
            buffer = memoryview(bytearray(min(BLOCK_BYTES, file.size)))
            for index, digest in enumerate(file.blocks or ()):
                offset = index * BLOCK_BYTES
                block = buffer[: min(BLOCK_BYTES, file.size - offset)]
                read_fully(descriptor, offset, [block], path=path)
                found = block_digest(block)
                if found != digest:
                    wanted = Wanted(PlainFile(path, identity), index, len(block), digest)
                    is_mended = self._mending is not None and self._mending(wanted) is not None
                    yield Finding(
                        path=file.path,
                        block=index,
                        offset=offset,
                        found=f"BLAKE3 {found}",
                        expected=digest,
                        repaired=is_mended,
                    )
        finally:
            os.close(descriptor)


def _check_whole(path: str, file: OfferedFile) -> Iterator[Finding]:
    descriptor = open_regular(path)
    size = os.fstat(descriptor).st_size
    os.close(descriptor)
    if size != file.size:
        yield _whole(file, f"{size:,} bytes", f"{file.size:,} bytes")
        return
    try:
        digest_file(path, file)
    except IntegrityError as exc:
        yield _whole(file, exc.found, exc.expected)


def _whole(file: OfferedFile, found: str, expected: str) -> Finding:
    return Finding(path=file.path, block=None, offset=0, found=found, expected=expected, repaired=False)
