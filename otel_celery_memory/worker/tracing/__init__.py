"""Allocation tracing."""
