"""As much of PromQL's grammar as the panels' rules need: selectors, ranges, grouping."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_LABELS = re.compile(r"\b(?:by|on|ignoring|without|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"(?<![\w:$])([a-zA-Z_:][\w:]*)(\{[^}]*\})?(?:\[([^\]]*)\])?(?!\w|\s*\()")
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "on", "ignoring", "without", "inf", "nan"}


@dataclass(frozen=True)
class Selector:
    """Series that an expression asks for, and the function right around them."""

    name: str
    matchers: str
    window: str
    function: str


def selectors(expression: str) -> list[Selector]:
    """All of an expression."""
    texts: list[str] = []

    def kept(found: re.Match[str]) -> str:
        texts.append(found[0])
        return f'"{len(texts) - 1}"'

    def back(text: str) -> str:
        return re.sub(r'"(\d+)"', lambda found: texts[int(found[1])], text)

    plain = _LABELS.sub("", _STRING.sub(kept, expression))
    return [
        Selector(found[1], back(found[2] or ""), found[3] or "", _function(plain[: found.start()]))
        for found in _SELECTOR.finditer(plain)
        if found[1] not in _WORDS
    ]


def grouping(expression: str) -> set[str]:
    """The labels that the expression groups by, anywhere."""
    return {
        name.strip()
        for labels in _LABELS.findall(_STRING.sub("", expression))
        for name in labels.split(",")
        if name.strip()
    }


def _function(before: str) -> str:
    found = re.search(r"(\w+)\s*\(\s*$", before)
    return found[1] if found else ""
