"""Starts and stops the measurement, the reporter and the children's part with the worker.

`prefork` is a worker with a reporter, from its bootstep to its end. `supervisor` starts the
reporter and starts it again. `embedded` is a process that measures itself: one without a reporter,
or a spawned child. Inside are the exits of the pool's children and the periodic checks.
"""

__all__ = ["embedded", "prefork", "supervisor"]
