"""Tests of what crosses between the processes."""
