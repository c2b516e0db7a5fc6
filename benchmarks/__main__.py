"""All benchmarks, one after the other."""

from benchmarks import children, latency, reporter, sites, tracer, troubles, worker

for part in (tracer, reporter, children, latency, sites, worker, troubles):
    part.main()
    print()
