"""Tests of the local view: what is received, kept, made a snapshot of and served."""
