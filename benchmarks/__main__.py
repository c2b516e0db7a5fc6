"""All benchmarks, one after the other."""

from benchmarks import (
    children,
    descendants,
    latency,
    reporter,
    sites,
    tracer,
    troubles,
    worker,
)

for part in (tracer, reporter, descendants, children, latency, sites, worker, troubles):
    part.main()
    print()
