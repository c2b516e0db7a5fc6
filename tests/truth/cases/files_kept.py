"""Each run opens a file and does not close it: descriptors grow, memory hardly."""

from __future__ import annotations

import os
from typing import IO

from otel_celery_memory import conventions as c
from tests.truth.app import app
from tests.truth.case import Case
from tests.truth.findings import FilesShown, KeptByRuns

_files: list[IO[bytes]] = []
CASES = (
    Case(
        "files kept open",
        "upload",
        {"upload": 3},
        shows=(KeptByRuns("upload", c.OPEN_FILES_RETAINED, c.OPEN_FILES), FilesShown(100)),
        kinds=("file_descriptors",),
        holder=("_files",),
    ),
)


@app.task
def upload(number: int) -> None:
    """Keeps a file open."""
    _files.append(open(os.devnull, "rb"))  # noqa: PTH123, SIM115  # the line
