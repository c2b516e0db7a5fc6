"""Leaks, and what looks like them, each with the answer that is right.

`python -m tests.zoo` runs them in real workers, `python -m tests.zoo.simulated` as series.
"""
