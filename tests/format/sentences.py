"""What every ``FormatError`` owes whoever reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload.errors import quoted

if TYPE_CHECKING:
    from fastload.errors import FormatError


def check_sentence(error: FormatError) -> None:
    """Check that it says which file, what was found and expected, and what to do; nothing that a terminal obeys."""
    said = str(error)
    for part in (quoted(error.path), error.found, error.expected, error.hint):
        assert part.strip("'")
        assert part in said
    assert error.tensor is None or f"tensor {quoted(error.tensor)}" in said
    assert said.isprintable()
    assert said.encode()  # no half of a surrogate pair either
    assert len(said) < 3000
