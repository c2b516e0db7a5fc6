"""What one run of a task did to its process's memory.

`signals` connects the `task_recorder` to Celery, which has each run measured in full or by the fast
path, sends the records and writes the numbers to the task's span, which `spans` finds.
`time_limits` says how long a task may run. Nothing here may raise into a task, block it or change
its result.
"""

__all__ = ["signals", "spans", "task_recorder", "time_limits"]
