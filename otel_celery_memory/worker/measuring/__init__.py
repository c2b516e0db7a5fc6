"""What one run of a task did to its process's memory.

`signals` connects the `task_recorder` to Celery. The recorder measures each run, sends the records
and writes the numbers to the task's span, which `spans` finds. `time_limits` has the time limits of
a task. Nothing here may raise into a task, block it or change its result.
"""

__all__ = ["signals", "spans", "task_recorder", "time_limits"]
