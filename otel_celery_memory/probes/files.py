"""Small files of the kernel: read with a bound, and their numbers parsed strictly.

A file under ``/proc`` or in a cgroup may be missing, hidden, of another kernel's form, or be bound
over by somebody: nothing here raises for it.
"""

from __future__ import annotations

from pathlib import Path

_LIMIT_BYTES = 64 * 1024
_DIGITS_MAX = 19
"""What a signed 64-bit number can have; more than 4,300 digits would make `int` raise."""


def read_small(path: Path) -> str:
    """At most 64 KiB of a text file, in whole lines; empty where it cannot be read.

    Bytes that are no UTF-8 come as surrogates, as in the names that `os` takes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES)
    except (OSError, ValueError):
        return ""
    if len(data) == _LIMIT_BYTES:
        # Half a number is another number.
        data = data[: data.rfind(b"\n") + 1]
    return data.decode("utf-8", "surrogateescape")


def lines(text: str) -> list[str]:
    """Lines as the kernel ends them; `str.splitlines` ends them within a process's name, too."""
    return text.split("\n")


def whole_number(text: str) -> int | None:
    """A number of ASCII digits below 2**63, or ``None``: ``max``, a sign or garbage is none."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        return None
    number = int(text)
    return number if number < 2**63 else None


def in_bytes(count: int | None, unit_bytes: int) -> int | None:
    """A count of pages or KiB in bytes; ``None`` where OTLP could not carry it."""
    if count is None or count * unit_bytes >= 2**63:
        return None
    return count * unit_bytes


def keyed_numbers(text: str) -> dict[str, int]:
    """``name 123`` lines, as in ``memory.stat`` and ``memory.events``; others are left out."""
    found: dict[str, int] = {}
    for line in lines(text):
        name, _, rest = line.partition(" ")
        number = whole_number(rest)
        if number is not None:
            found[name] = number
    return found


def kib_numbers(text: str) -> dict[str, int]:
    """``Name:   123 kB`` lines, as in ``status`` and ``meminfo``, in bytes."""
    found: dict[str, int] = {}
    for line in lines(text):
        name, _, rest = line.partition(":")
        parts = rest.split()
        if len(parts) == 2 and parts[1] == "kB":
            size = in_bytes(whole_number(parts[0]), 1024)
            if size is not None:
                found[name] = size
    return found
