"""Records become OpenTelemetry metrics and log events; the only user of the SDK."""
