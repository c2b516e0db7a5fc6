"""The part inside the Celery worker: measure, write a record, never wait."""
