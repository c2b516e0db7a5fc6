"""Captures: what was seen alive in a worker, kept in a file to be looked at and compared.

`model` is a capture as a value, made where sites are added up. `format` writes and reads its file,
`directory` keeps files in a private and bounded directory, `pprof` writes it as a profile, and
`comparison` chooses and groups its sites and tells the difference of two. It needs the standard
library only: a capture is looked at anywhere.
"""

__all__ = ["comparison", "directory", "format", "model", "pprof"]
