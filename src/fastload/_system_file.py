"""Files in which the kernel and drivers say something; one that is not there, or hidden from us, says nothing."""

from __future__ import annotations


def read_text(path: str, *, errors: str = "replace") -> str:
    """What is in one of them; empty where it is not there."""
    try:
        # Of all codecs, utf-8 alone is no module that would have to be read now, from a disk that may be failing.
        with open(path, encoding="utf-8", errors=errors, newline="") as file:  # a name in it may hold a carriage return
            return file.read()
    except OSError:
        return ""


def read_lines(path: str) -> list[str]:
    """Its lines, but for empty ones."""
    return [line for line in read_text(path).split("\n") if line]


def read_line(path: str) -> str:
    """The only one, or the first."""
    return next(iter(read_lines(path)), "")


def read_boot_id() -> str:
    """What tells this boot of this machine from any other; empty where the kernel does not say (gVisor)."""
    return read_line("/proc/sys/kernel/random/boot_id")
