"""The test suites of those whose code we stand in, with us and without us: ``make peers``.

Celery's own unit and integration suites and those of OpenTelemetry's Celery instrumentation come
from the source distributions of the installed versions. Each runs as its authors wrote it, in an
environment of its own; `plugin` instruments the test process before or after the tests are
imported. What came of each test is compared with what comes of it without us.
"""
