"""Captures: memory that was alive in a worker, by site, in a file to show and compare.

`model` is a capture as a value. `format` writes and reads its file, `directory` keeps files in a
private and bounded directory, `pprof` writes a capture as a profile, and `comparison` filters and
groups its sites and compares two captures. The room needs the standard library only, so a capture
can be read on any machine.
"""

__all__ = ["comparison", "directory", "format", "model", "pprof"]
