"""What the kernel and the interpreter say about memory: no Celery, no OpenTelemetry.

`own_memory` reads this process by the cheapest reads there are, `procfs` any process, `limits` the
limits a worker runs into, `allocators` the heaps of CPython and malloc. `tracemalloc_session`
starts and stops ``tracemalloc`` without touching anybody else's tracing, `sites` groups what it
found. `native_threads` and `descriptors` are what works beside gevent and eventlet, and beside
tasks that close descriptors.
"""

__all__ = [
    "allocators",
    "descriptors",
    "limits",
    "native_threads",
    "own_memory",
    "procfs",
    "sites",
    "tracemalloc_session",
]
