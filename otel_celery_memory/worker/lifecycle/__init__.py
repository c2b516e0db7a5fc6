"""When things begin and end in a worker: its reporter, its children, its goodbyes.

`prefork` follows a worker with a reporter from its bootstep to its end; `supervisor` starts the
reporter and starts it again. `embedded` is a process that measures itself: without a reporter, or
spawned. Inside are the exits of the pool's children and what is checked now and then.
"""

__all__ = ["embedded", "prefork", "supervisor"]
