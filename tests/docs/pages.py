"""The fenced blocks of a page, and what each needs: ``<!-- needs: cluster -->`` before one that cannot run here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
NEEDS = ("cluster", "docker", "gpu", "internet", "checkout", "engine", "volume")
"""Reasons to only look at a block: an ``engine`` is vLLM or transformers, a ``volume`` is measured for minutes."""
_FENCE = re.compile(
    r"^(?:<!-- needs: (?P<needs>\w+) -->\n+)?```(?P<language>\w+)?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """One block."""

    page: str
    line: int
    language: str
    text: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def list_pages() -> list[str]:
    """README, docs and the READMEs of the examples, without decisions, which are history."""
    docs = [path for path in (CHECKOUT / "docs").rglob("*.md") if "adr" not in path.parts]
    examples = (CHECKOUT / "examples").rglob("*.md")
    return sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "README.md", *docs, *examples))


def find_blocks(page: str) -> list[Block]:
    """The blocks of one page, in order."""
    text = (CHECKOUT / page).read_text()
    return [
        Block(
            page, text.count("\n", 0, match.start("text")) + 1, match["language"] or "", match["text"], match["needs"]
        )
        for match in _FENCE.finditer(text)
    ]


ALL = [block for page in list_pages() for block in find_blocks(page)]
