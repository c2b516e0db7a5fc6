"""Tests of the reporter's parts, and of its loop on a real pipe."""
