"""The test suite: unit, telemetry, worker and stack, from the fastest to the most real."""
