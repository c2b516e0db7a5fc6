"""Tests of the page in a real browser: `make view-tests`."""
