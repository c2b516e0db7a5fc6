"""Captures: what was seen alive in a worker, kept in a file to be looked at and compared."""
