"""What OpenTelemetry has beside its SDK: a file of configuration, read by its own package from
release 1.45 on, and its distro, which chooses other defaults. Not run with the lowest dependencies.
"""
