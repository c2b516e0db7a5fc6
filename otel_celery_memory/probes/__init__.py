"""What the kernel and the interpreter say about memory: no Celery, no OpenTelemetry."""
