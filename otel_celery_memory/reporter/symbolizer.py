"""Names lines of code: a short stable path, and the function around the line.

``tracemalloc`` knows files and lines only. The function is read from the source here and not in the
worker, where it would cost the tasks time.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_SOURCE_MAX_BYTES = 2_000_000


@dataclass(frozen=True)
class CodePlace:
    """The short name of a line, for people, and the function around it, if known."""

    name: str
    function: str | None


class Symbolizer:
    """Names lines of code, with paths relative to the first of ``roots`` that contains them."""

    def __init__(self, roots: Sequence[str] | None = None) -> None:
        self._roots = default_roots() if roots is None else tuple(roots)

    def describe(self, path: str, line: int) -> CodePlace:
        """The short name of a line and the function around it."""
        return CodePlace(f"{self._short(path)}:{line}", function_at(path, line))

    def _short(self, path: str) -> str:
        for root in self._roots:
            if path.startswith(root):
                return path[len(root) :]
        return path


def default_roots() -> tuple[str, ...]:
    """The working directory, site-packages and the standard library, the longest path first.

    A virtual environment often lies inside the working directory.
    """
    paths = sysconfig.get_paths()
    roots = {str(Path.cwd()), paths["purelib"], paths["platlib"], paths["stdlib"]}
    return tuple(sorted((root.rstrip("/") + "/" for root in roots), key=len, reverse=True))


@lru_cache(maxsize=2_000)
def function_at(path: str, line: int) -> str | None:
    """Qualified name of the innermost function around a line; ``None`` if unknown."""
    found: str | None = None
    for first, last, name in _functions(path):
        if first <= line <= last:
            found = name
    return found


@lru_cache(maxsize=200)
def _functions(path: str) -> tuple[tuple[int, int, str], ...]:
    """(first line, last line, qualified name) of a file's functions, outer before inner."""
    try:
        source = Path(path)
        # Reading a pipe or a device could block.
        if not source.is_file() or source.stat().st_size > _SOURCE_MAX_BYTES:
            return ()
        with warnings.catch_warnings():
            # Warnings of the compiler about the user's code do not belong in our log.
            warnings.simplefilter("ignore")
            tree = ast.parse(source.read_bytes())
        found: list[tuple[int, int, str]] = []
        _collect(tree, "", found)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(found)


def _collect(node: ast.AST, prefix: str, found: list[tuple[int, int, str]]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = prefix + child.name
            found.append((child.lineno, child.end_lineno or child.lineno, name))
            _collect(child, f"{name}.<locals>.", found)
        elif isinstance(child, ast.ClassDef):
            _collect(child, f"{prefix}{child.name}.", found)
        else:
            _collect(child, prefix, found)
