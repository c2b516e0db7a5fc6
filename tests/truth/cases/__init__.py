"""Shapes of leaks, and of what looks like one: a module each, small and fast.

Each names what leaks in its ``CASES``; the line to be told ends with ``# the line``.
"""
