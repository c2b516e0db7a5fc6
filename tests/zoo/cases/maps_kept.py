"""Anonymous mappings are made in each run, filled and kept."""

from __future__ import annotations

import mmap

from tests.truth.app import app
from tests.truth.case import Case

_maps: list[mmap.mmap] = []
CASES = (Case("mappings kept", "render", {"render": 4}, kinds=("mapping",), holder=("_maps",)),)


@app.task
def render(number: int) -> None:
    """Keeps 256 KiB."""
    _maps.append(mmap.mmap(-1, 256 << 10))  # the line
    _maps[-1].write(bytes([number % 255 + 1]) * (256 << 10))
