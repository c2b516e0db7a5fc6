"""Tests of how a worker begins and ends."""
