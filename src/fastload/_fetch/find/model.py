"""What a caller asks for: a model, and which part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._format.select import by_rule
from fastload._store.ref import name_of

if TYPE_CHECKING:
    import os

    from fastload._format.select import Select


@dataclass(frozen=True, slots=True)
class Source:
    """What to load, and which part of it."""

    model: str | os.PathLike[str]
    subfolder: str | None = None
    variant: str | None = None
    revision: str | None = None
    select: Select | None = None
    """Who chooses among the files of a folder; None: our own rule, by ``variant``."""

    @property
    def choose(self) -> Select:
        """Chooses among the files of a folder."""
        return by_rule(self.variant) if self.select is None else self.select

    @property
    def name(self) -> str:
        """As the caller called it."""
        text = name_of(self.model)
        return text if self.revision is None else f"{text}@{self.revision}"
