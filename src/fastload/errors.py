"""Every error that leaves fastload, drawn as a tree.

::

    FastloadError
    ├── UsageError (also a ValueError)   what was asked for cannot be meant
    ├── ModelNotFoundError               no such model where it was looked for
    ├── FormatError                      the checkpoint is malformed, or holds no weights
    ├── IntegrityError                   the bytes are not the right ones
    ├── SignatureError                   a signature does not hold
    ├── MemoryBudgetError                it would not fit; known beforehand, where that is possible
    ├── DeadlineError                    the time that was given is over
    ├── UnsupportedError                 valid, but not possible here
    ├── GroupError                       another rank of the group failed
    ├── StoreError                       storage cannot be read or written
    │   ├── NoSpaceError
    │   ├── NotWritableError
    │   └── LockTimeoutError
    └── HubError                         the hub did not give what was asked
        ├── AuthError
        └── NetworkError

An error carries its facts as attributes and composes its text from them, so that a program reads the attributes and a
person reads the sentence. The sentence says what was found, what was expected and what to do next.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from fastload._finding import Finding

_TEXT_LIMIT = 300
_FACT_LIMIT = 4096


def escaped(text: str) -> str:
    """A name from a file as it may be shown: names may hold newlines and terminal escapes (the format allows them)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def quoted(text: str) -> str:
    """A name from a file as it may stand in a message: escaped, and cut at 300 characters."""
    return "'" + escaped(text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + "…") + "'"


def _rebuild(cls: type[FastloadError], args: tuple[Any, ...], state: dict[str, Any]) -> FastloadError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def _cut(fact: Any) -> Any:
    """A name of a tensor may be 100 MB long."""
    return fact[:_FACT_LIMIT] + "…" if isinstance(fact, str) and len(fact) > _FACT_LIMIT else fact


def _plain(item: Any) -> Any:
    return asdict(item) if is_dataclass(item) and not isinstance(item, type) else item


class FastloadError(Exception):
    """Base of all errors of fastload. Catch it to catch everything fastload raises on purpose."""

    exit_code: ClassVar[int] = 1
    hint: str = ""
    """What to do next, and what else there is to know."""

    def __str__(self) -> str:
        return _sentence(super().__str__(), self.hint)

    def add_hint(self, text: str) -> None:
        """Say ``text`` too, after the hint that is there: who passes an error on may know more than who made it."""
        self.hint = ". ".join(filter(None, (self.hint, text)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process borders (multiprocessing, torchrun) with their facts."""
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))

    def to_dict(self) -> dict[str, Any]:
        """The kind, the sentence and the facts, as JSON types; long texts are cut."""
        facts = {name: _cut(fact) for name, fact in vars(self).items() if not name.startswith("_")}
        lists = {name: [_plain(item) for item in fact] for name, fact in facts.items() if isinstance(fact, tuple)}
        return {"type": type(self).__name__, "message": str(self), **facts, **lists}


def _sentence(what: str, hint: str) -> str:
    return f"{what}. {hint}" if hint else what


@dataclass(eq=False)
class UsageError(FastloadError, ValueError):
    """What was asked for cannot be meant: a wrong argument, setting or combination."""

    exit_code: ClassVar[int] = 2
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(self.what, self.hint)


@dataclass(eq=False)
class ModelNotFoundError(FastloadError):
    """No model of that name or path; ``searched`` lists the places."""

    exit_code: ClassVar[int] = 12
    model: str
    searched: tuple[str, ...]
    hint: str = ""

    def __str__(self) -> str:
        places = ", ".join(map(escaped, self.searched)) or "nowhere"
        return _sentence(f"no model {quoted(self.model)} (searched: {places})", self.hint)


@dataclass(eq=False)
class FormatError(FastloadError):
    """A file of the checkpoint is malformed, or there are no weights."""

    exit_code: ClassVar[int] = 17
    path: str
    found: str
    expected: str
    tensor: str | None = None
    hint: str = ""

    def __post_init__(self) -> None:
        self.hint = self.hint or "Fetch the file again, or ask whoever made it"

    def __str__(self) -> str:
        tensor = f"tensor {quoted(self.tensor)}: " if self.tensor is not None else ""
        what = f"{quoted(self.path)}: {tensor}found {self.found}; expected {self.expected}"
        return _sentence(what, self.hint)


@dataclass(eq=False)
class IntegrityError(FastloadError):
    """The bytes are not the right ones: damaged, short, or changed while they were read."""

    exit_code: ClassVar[int] = 13
    path: str
    offset: int
    found: str
    expected: str
    hint: str = ""
    findings: tuple[Finding, ...] = ()
    """All that is wrong, where more was looked at than one place: see :func:`fastload.verify`."""
    is_whole: bool = False
    """True if the file has another digest than it should, and nobody knows which of its bytes are wrong."""
    block: int | None = None
    """The number of the block that is wrong, of 4 MiB each; None: the file as a whole, or what was read of it."""

    def __str__(self) -> str:
        where = f"at byte {self.offset}" if self.block is None else f"block {self.block} at byte {self.offset}"
        return _sentence(f"{quoted(self.path)}: {where}: found {self.found}; expected {self.expected}", self.hint)


@dataclass(eq=False)
class SignatureError(FastloadError):
    """A signature over the model does not hold."""

    exit_code: ClassVar[int] = 18
    path: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"{quoted(self.path)}: found {self.found}; expected {self.expected}", self.hint)


@dataclass(eq=False)
class MemoryBudgetError(FastloadError):
    """The weights do not fit; ``limit`` names what sets the bound.

    What can be reckoned is, before anything is allocated; but the system may refuse later what it seemed to have.
    """

    exit_code: ClassVar[int] = 21
    needed_bytes: int
    available_bytes: int
    limit: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(
            f"needs {self.needed_bytes:,} bytes, but {self.limit} leaves {self.available_bytes:,}", self.hint
        )


@dataclass(eq=False)
class DeadlineError(FastloadError):
    """The time that was given is over."""

    exit_code: ClassVar[int] = 19
    deadline_s: float
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(f"{self.what} did not end within {self.deadline_s:g} s", self.hint)


@dataclass(eq=False)
class UnsupportedError(FastloadError):
    """Valid, but not possible here: this machine, file system, torch or device cannot do it."""

    exit_code: ClassVar[int] = 20
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(self.what, self.hint)


@dataclass(eq=False)
class GroupError(FastloadError):
    """Another rank of the group failed, or the ranks disagree."""

    exit_code: ClassVar[int] = 23
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return _sentence(self.what, self.hint)


@dataclass(eq=False)
class StoreError(FastloadError):
    """Storage cannot be read or written; ``reason`` is the system's own word for it."""

    exit_code: ClassVar[int] = 15
    path: str
    reason: str
    hint: str = ""
    findings: tuple[Finding, ...] = ()
    """What :func:`fastload.verify` had found before it could not write."""

    def __str__(self) -> str:
        return _sentence(f"{quoted(self.path)}: {self.reason}", self.hint)


@dataclass(eq=False)
class NoSpaceError(StoreError):
    """There is no room for what should be written."""

    exit_code: ClassVar[int] = 14


@dataclass(eq=False)
class NotWritableError(StoreError):
    """The place may not be written by this user."""

    exit_code: ClassVar[int] = 15


@dataclass(eq=False)
class LockTimeoutError(StoreError):
    """Somebody else held a lock for too long, and nothing moved."""

    exit_code: ClassVar[int] = 16


@dataclass(eq=False)
class HubError(FastloadError):
    """The hub did not give what was asked of it."""

    exit_code: ClassVar[int] = 10
    url: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        # Both may hold what a server wrote: a redirect says where it leads.
        return _sentence(f"{escaped(self.url)}: {escaped(self.reason)}", self.hint)


@dataclass(eq=False)
class AuthError(HubError):
    """The hub wants a token, refuses the one it got, or the model is gated."""

    exit_code: ClassVar[int] = 11


@dataclass(eq=False)
class NetworkError(HubError):
    """The hub could not be reached or broke off; trying again may help."""

    exit_code: ClassVar[int] = 10
