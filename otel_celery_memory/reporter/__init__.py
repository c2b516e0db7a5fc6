"""The reporter: reads records, keeps the worker's state, emits telemetry.

It is a process beside the worker, started as ``python -m otel_celery_memory.reporter``. `__main__`
wires its parts and runs the loop of `service`. `in_process` wires the same parts in the process
that runs the tasks. `symbolizer` names lines of code and `holders` what holds objects, for tests
of tasks, too. No other module is imported from outside. The state of the worker is in `state`, and
only the `emitter` turns it into telemetry.
"""

__all__ = ["holders", "in_process", "symbolizer"]
