"""The part inside the Celery worker: it measures, writes records and never waits.

From the top: `lifecycle` starts and stops everything with the worker, `remote_control` carries out
people's commands, `measuring` turns each run of a task into records, and `tracing` finds the lines
that allocated. All of them send records through `record_writer`. Only rooms of the worker
use `tracing` and `record_writer`.
"""

__all__ = ["lifecycle", "measuring", "remote_control"]
