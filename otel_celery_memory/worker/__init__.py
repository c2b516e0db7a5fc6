"""The part inside the Celery worker: measure, write a record, never wait.

From the top: `lifecycle` is when things begin and end, `remote_control` is what people ask,
`measuring` turns each run of a task into records, and `tracing` finds the lines that allocated.
All of them send through the `pipe`; these two are for the worker's own rooms.
"""

__all__ = ["lifecycle", "measuring", "remote_control"]
