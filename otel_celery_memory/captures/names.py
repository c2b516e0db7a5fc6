"""Short names for files, from what a capture knows: its owners have one, other frames do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from otel_celery_memory.captures.model import CapturedSite

_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib(?:64)?/python3\.\d+)/", re.DOTALL)
"""What a path of an installed package or of the standard library begins with, as far as it goes."""


def short_path(path: str, roots: Sequence[str] = ()) -> str:
    """A path below site-packages, the standard library or the first of `roots` that holds it.

    Each root ends with a slash. A virtual environment may lie inside one.
    """
    library = _LIBRARY.match(path)
    if library:
        return path[library.end() :]
    for root in roots:
        if path.startswith(root):
            return path[len(root) :]
    return path


class ShortNames:
    """Names places as the sites' own names do, in whatever directory these were run."""

    def __init__(self, sites: Iterable[CapturedSite]) -> None:
        roots = {root for site in sites if (root := _root(site))}
        self._roots = sorted(roots, key=len, reverse=True)

    def file(self, path: str) -> str:
        """The short name of a file."""
        return short_path(path, self._roots)

    def place(self, path: str, line: int) -> str:
        """The short name of a line."""
        return f"{self.file(path)}:{line}"


def _root(site: CapturedSite) -> str | None:
    """What the name of a site leaves out of its path."""
    short = site.name.removesuffix(f":{site.line}")
    root = site.path.removesuffix(short)
    return root if short and root.endswith("/") and root != site.path else None
