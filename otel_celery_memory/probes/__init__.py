"""Reads what the kernel and the interpreter know about memory: no Celery, no OpenTelemetry.

`own_memory` reads this process by the cheapest reads there are, `procfs` any process, `limits` the
limits of a worker, `allocators` the heaps of CPython and malloc. `tracemalloc_session` starts and
stops ``tracemalloc`` and leaves the user's own tracing alone, `sites` groups its traces. `objects`
counts live objects by type and names what holds them.
`urgent_signal` wakes the main thread by a timer. `native_threads` works beside gevent and eventlet,
`descriptors` beside tasks that close descriptors.
"""

__all__ = [
    "allocators",
    "descriptors",
    "limits",
    "native_threads",
    "objects",
    "own_memory",
    "procfs",
    "sites",
    "tracemalloc_session",
    "urgent_signal",
]
