"""What crosses between a worker's processes and its reporter, and its layout in memory.

`records` are the facts, one record a fact; `codec` encodes records as frames of a pipe and decodes
them. `journal` keeps the bytes that were read until an endpoint acknowledges them. `control_page`
is the memory that all processes share: `commands` from people, the task in flight of each slot, the
cost of allocation tracing, drop counters and acknowledged exits. `status_page` carries the
reporter's view back to the worker. `fifo` lets spawned children find their worker. Bytes that come
from another process are checked before they are used.
"""

__all__ = ["codec", "commands", "control_page", "fifo", "journal", "records", "status_page"]
