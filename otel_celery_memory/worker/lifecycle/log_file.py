"""Where a worker logs to: its reporter does too.

A worker that was detached has ``/dev/null`` for standard error, and so would its reporter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery.utils.nodenames import node_format


def log_file_of(worker: Any) -> str:
    """The absolute path of ``--logfile`` as the main process has it; empty where there is none."""
    named = getattr(worker, "logfile", None)
    # Celery takes open files too.
    if not isinstance(named, str) or not named:
        return ""
    return str(Path(node_format(named, worker.hostname)).absolute())
