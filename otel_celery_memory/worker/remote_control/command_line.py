"""Celery's command line told of our remote commands, where it would not look for them itself.

Celery before 5.7 fixes the names that ``celery inspect`` and ``celery control`` accept when it
starts, before it loads the app that brings these commands with it.
"""

from __future__ import annotations

import sys
from typing import Any


def accept(inspect: tuple[str, ...], control: tuple[str, ...]) -> None:
    """Have these names accepted, if this process is that command line."""
    module: Any = sys.modules.get("celery.bin.control")
    for group, names in (("inspect", inspect), ("control", control)):
        for parameter in getattr(getattr(module, group, None), "params", ()):
            choices = getattr(parameter.type, "choices", None)
            if parameter.name == "action" and choices is not None:
                new = [name for name in names if name not in choices]
                parameter.type.choices = type(choices)([*choices, *new])
