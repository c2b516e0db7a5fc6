"""The reporter: records in, state and telemetry out.

It is a process beside the worker, started as ``python -m otel_celery_memory.reporter``, which wires
its parts in `__main__` and runs the loop of `service`. `in_process` wires the same parts without
that process, where the tasks run. Nobody imports the parts: what is known of the worker is in
`state`, and the `emitter` alone makes telemetry of it.
"""

__all__ = ["in_process"]
