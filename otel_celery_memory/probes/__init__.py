"""Reads what the kernel and the interpreter know about memory: no Celery, no OpenTelemetry.

`own_memory` reads this process by the cheapest reads there are, `procfs` any process, `limits` the
limits of a worker, `allocators` the heaps of CPython and malloc, and `free_tuples` what of the
first one is free all the same. `abilities` says what of all that
can be measured here, and why the rest cannot. `tracemalloc_session` starts and
stops ``tracemalloc`` and leaves the user's own tracing alone, `sites` groups its traces. `objects`
counts live objects by type and names what holds them.
`urgent_signal` wakes the main thread by a timer. `native_threads` works beside gevent and eventlet,
`descriptors` beside tasks that close descriptors.
"""

__all__ = [
    "abilities",
    "allocators",
    "descriptors",
    "free_tuples",
    "limits",
    "native_threads",
    "objects",
    "own_memory",
    "procfs",
    "sites",
    "tracemalloc_session",
    "urgent_signal",
]
