"""Tests of the reporter's state."""
