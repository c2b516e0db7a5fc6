"""Celery's configuration for the demo: kombu's broker on the file system, in one directory.

Kombu takes a message by its file's name, and so may take one that is not written to its end. The
demo therefore writes into ``outbox`` and renames into ``inbox``, where the worker reads.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from billiard.util import set_pdeathsig
from celery import signals

DIRECTORY = Path(os.environ["DEMO_DIRECTORY"])


def folder(name: str) -> Path:
    """A directory of the broker, made where it is missing."""
    path = DIRECTORY / name
    path.mkdir(exist_ok=True)
    return path


broker_url = "filesystem://"
broker_transport_options = {
    "data_folder_in": str(folder("inbox")),
    "data_folder_out": str(folder("inbox")),
    "control_folder": str(folder("control")),
    # On its way into a task a message is a file here, or else in the system's directory for
    # temporary files, where an interrupted demo would leave it.
    "store_processed": True,
    "processed_folder": str(folder("processed")),
    "polling_interval": 0.05,
}
broker_connection_retry_on_startup = False
task_ignore_result = True
worker_enable_remote_control = False
worker_max_tasks_per_child = 150


def _outlive_parent_thread(**_: Any) -> None:
    # With a broker that has no event loop, billiard forks the successor of a recycled child from
    # a thread. Celery has the kernel kill a child when its parent ends, and for the kernel that
    # is the thread, which ends first in a warm shutdown: the child would die in its task.
    with contextlib.suppress(OSError):  # Linux alone has it
        set_pdeathsig(0)


signals.worker_process_init.connect(_outlive_parent_thread, weak=False)
