"""Tests of allocation tracing."""
