"""Tests of the examples: applications that are run, and files of those who run workers."""
