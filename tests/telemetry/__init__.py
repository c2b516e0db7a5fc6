"""Tests that compare whole payloads: what leaves the SDK, down to the last attribute."""
