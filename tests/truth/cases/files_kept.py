"""Each run opens a file and does not close it: descriptors grow, memory hardly."""

from __future__ import annotations

import os
from typing import IO

from tests.truth.app import app
from tests.truth.case import Case

_files: list[IO[bytes]] = []
CASES = (Case("files kept open", "upload", {"upload": 3}),)


@app.task
def upload(number: int) -> None:
    """Keeps a file open."""
    _files.append(open(os.devnull, "rb"))  # noqa: PTH123, SIM115  # the line
