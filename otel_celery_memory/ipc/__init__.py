"""What crosses between a worker's processes and its reporter, and its layout in memory.

`records` are the facts, one record a fact; `codec` encodes records as frames and decodes them.
`ring` carries the frames of each process. `journal` keeps those that were read until an endpoint
acknowledges them. `control_page` is the memory that all processes share: `commands` from people,
the task in flight of each slot, the cost of allocation tracing, drop counters and acknowledged
exits. `status_page` carries the reporter's view back to the worker. `shared_memory` makes the
memory, and lets spawned children find it. Bytes that come from another process are checked before
they are used.
"""

__all__ = [
    "codec",
    "commands",
    "control_page",
    "journal",
    "records",
    "ring",
    "shared_memory",
    "status_page",
]
