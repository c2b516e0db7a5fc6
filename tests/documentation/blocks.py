"""The fenced blocks and code spans of the documentation's pages."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "docs" / "site"
PAGES = tuple(sorted(SITE.rglob("*.md")))
FILES = (*(ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")), *PAGES)
"""All that is read: the site's pages, and the files of the repository that it shows."""

_BLOCK = re.compile(
    r"^(?:[ ]*<!-- not run: (?P<reason>[^\n]+?) -->\n+)?"
    r"(?P<indent>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_GENERATED = re.compile(r"<!-- \S+ -->\n(?:(?!<!--).*\n)*<!-- end -->")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block. `reason` says why it cannot be checked; empty if it can."""

    file: Path
    line: int
    language: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def blocks_of(file: Path) -> Iterator[Block]:
    """The blocks of a file, in order."""
    page = file.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(page):
        line = page.count("\n", 0, found.start("language")) + 1
        text = textwrap.dedent(found["text"])
        yield Block(file, line, found["language"], text, found["reason"] or "")


def spans_of(file: Path) -> list[str]:
    """What stands between single backticks, outside of blocks and of generated tables."""
    text = _BLOCK.sub("", file.read_text(encoding="utf-8"))
    return _SPAN.findall(_GENERATED.sub("", text))
