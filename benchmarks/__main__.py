"""All benchmarks, one after the other."""

from benchmarks import children, reporter, tracer

for part in (tracer, reporter, children):
    part.main()
    print()
