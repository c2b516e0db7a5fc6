"""The process beside the worker: records in, state and telemetry out."""
