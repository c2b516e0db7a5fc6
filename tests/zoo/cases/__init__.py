"""Rows of the zoo that `tests.truth.cases` does not have: a module each, in the same form."""
