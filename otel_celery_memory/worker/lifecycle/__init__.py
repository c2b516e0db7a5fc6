"""Starts and stops the measurement, the reporter and the children's part with the worker.

`prefork` is a worker with a reporter, from its bootstep to its end. `supervisor` starts the
reporter and starts it again. `embedded` is a process that measures itself: one without a reporter,
or a spawned child. `announcement` has what the worker's log says of it. Inside are the exits of the
pool's children, the periodic checks, and events for consumers of Celery's.
"""

__all__ = ["announcement", "embedded", "prefork", "supervisor"]
