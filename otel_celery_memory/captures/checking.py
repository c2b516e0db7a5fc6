"""Values from a file that anybody may have written: each is what it should be, or an error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from otel_celery_memory.captures.errors import CaptureError

INT64_MAX = 2**63 - 1
_SECONDS_MAX = 10**9
"""Thirty years, whose nanoseconds are an integer of 64 bits too."""
_QUOTED_MAX = 40


class Values:
    """The values of one JSON object; `where` it stands is told in errors."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise CaptureError(f"{where} should be an object")
        self._values = value
        self._where = where

    def text(self, name: str) -> str:
        """A string."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def optional_text(self, name: str) -> str | None:
        """A string or null."""
        return None if self._get(name) is None else self.text(name)

    def integer(self, name: str, low: int = -INT64_MAX) -> int:
        """An integer of 64 bits, not below `low`."""
        value = self._get(name)
        if not is_integer(value, low):
            raise self._wrong(name, f"an integer from {low}" if low >= 0 else "an integer")
        return value

    def optional_integer(self, name: str, low: int = -INT64_MAX) -> int | None:
        """An integer or null."""
        return None if self._get(name) is None else self.integer(name, low)

    def seconds(self, name: str) -> float:
        """A finite number, not negative."""
        value = self._get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(name, "a number")
        if not (math.isfinite(value) and 0 <= value <= _SECONDS_MAX):
            raise self._wrong(name, "a number of seconds")
        return float(value)

    def list(self, name: str) -> Sequence[object]:
        """A list of anything."""
        value = self._get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def counts(self, name: str) -> Mapping[str, int]:
        """An object whose values are integers from 0."""
        value = self._get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        for count in value.values():
            if not is_integer(count, 0):
                raise self._wrong(name, "an object of integers from 0")
        return value

    def _get(self, name: str) -> object:
        try:
            return self._values[name]
        except KeyError:
            raise CaptureError(f"{self._where} has no {name!r}") from None

    def _wrong(self, name: str, wanted: str) -> CaptureError:
        return CaptureError(
            f"{self._where}: {name!r} should be {wanted}, not {quoted(self._get(name))}"
        )


def is_integer(value: object, low: int) -> TypeGuard[int]:
    """Whether a value is an integer of 64 bits, not below `low`; ``true`` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= INT64_MAX


def quoted(value: object) -> str:
    """A value from a file, short and harmless enough for an error's one line."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, str) and len(value) > _QUOTED_MAX:
        value = value[:_QUOTED_MAX] + "..."
    return ascii(value)
