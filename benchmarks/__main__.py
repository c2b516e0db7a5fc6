"""All benchmarks, one after the other."""

from benchmarks import children, latency, reporter, sites, tracer, worker

for part in (tracer, reporter, children, latency, sites, worker):
    part.main()
    print()
