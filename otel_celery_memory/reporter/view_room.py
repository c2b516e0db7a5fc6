"""A view of the worker that is too large for its page, made smaller until it fits. Pure.

Without it the page would show what it showed last, for as long as the worker has so much to tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_FIRST = ("sites", "tasks", "processes", "switched_off", "captures")
"""What becomes less first."""
_FLOORS = (5, 0)
"""No list falls below five rows before all others have."""


def write_what_fits(view: dict[str, Any], write: Callable[[dict[str, Any]], bool]) -> bool:
    """Have `write` take the view, or what of it there is room for; ``left_out`` says how much.

    Each list has its largest rows at its head, so that its tail goes.
    """
    left_out: dict[str, int] = {}
    for floor in _FLOORS:
        for name in _FIRST:
            while not write(view):
                rows = view[name]
                kept = rows[: max(len(rows) // 2, floor)]
                if len(kept) == len(rows):
                    break
                left_out[name] = left_out.get(name, 0) + len(rows) - len(kept)
                view = {**view, name: kept, "left_out": left_out}
            else:
                return True
    return False
