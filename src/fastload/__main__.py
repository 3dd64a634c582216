"""``python -m fastload``."""

from __future__ import annotations

from fastload.cli import command

if __name__ == "__main__":
    command()
