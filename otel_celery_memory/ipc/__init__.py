"""What crosses between a worker's processes and its reporter, and how it lies in memory.

`records` says what happened, one record a fact, and `codec` puts records into frames of a pipe and
finds them again. `journal` keeps what was read until an endpoint has it. `control_page` is the
memory that all of them share: `commands` that people gave, what each slot runs, what was spent on
tracing, what was dropped and which exits were acknowledged. `status_page` carries the view for
people back to the worker. `fifo` is where spawned children meet their worker. All bytes that come
from another process are checked before they are used.
"""

__all__ = ["codec", "commands", "control_page", "fifo", "journal", "records", "status_page"]
