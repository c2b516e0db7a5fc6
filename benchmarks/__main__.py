"""All benchmarks, one after the other."""

from benchmarks import children, reporter, sites, tracer, worker

for part in (tracer, reporter, children, sites, worker):
    part.main()
    print()
