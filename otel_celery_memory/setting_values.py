"""What values a setting may have: each is read from a keyword or a variable's text, or refused.

A value that is refused raises `ValueError` or `TypeError`.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable


def choice(*allowed: str) -> Callable[[object], str]:
    """One of these words."""

    def parse(value: object) -> str:
        if value in allowed:
            return str(value)
        raise ValueError

    return parse


def integer(low: int, high: int) -> Callable[[object], int]:
    """A whole number within these bounds."""

    def parse(value: object) -> int:
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(str(value))
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def number(low: float, high: float) -> Callable[[object], float]:
    """A number within these bounds."""

    def parse(value: object) -> float:
        if isinstance(value, bool):
            raise ValueError
        number = float(str(value))
        if not low <= number <= high:  # also refuses NaN
            raise ValueError
        return number

    return parse


def boolean(value: object) -> bool:
    """True or false, in any case, or 1 or 0."""
    found = {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())
    if found is None:
        raise ValueError
    return found


def directory(value: object) -> str:
    """An absolute path; empty is none. Whether it can be written to is seen where it is."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or "\0" in path or not (path == "" or path.startswith("/")):
        raise ValueError
    return path


def patterns(value: object) -> tuple[str, ...]:
    """File patterns: a comma-separated string, or a sequence of strings."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError
    # A comma separates everywhere: the reporter is told its patterns as one string.
    found = tuple(word.strip() for part in parts for word in part.split(",") if word.strip())
    for pattern in found:
        if "\0" in pattern or len(pattern) > 1_000:
            raise ValueError
        try:
            re.compile(fnmatch.translate(pattern))
        except re.error:
            raise ValueError from None
    return found
