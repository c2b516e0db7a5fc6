"""Tests of measuring tasks."""
