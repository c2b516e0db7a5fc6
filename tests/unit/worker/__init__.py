"""Tests of the worker side, without a worker."""
