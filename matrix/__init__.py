"""The fast tests on every CPython of this machine, with each Celery and OpenTelemetry allowed.

interpreters → combinations → trial, one after another → results.json → a table in the documentation
"""
