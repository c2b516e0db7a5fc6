"""Tests of one module each, in the package's own order; nothing outlives a test."""
