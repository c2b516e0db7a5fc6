"""Tests of the command line: what is printed, and what is answered to bad input."""
