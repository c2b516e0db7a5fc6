"""Real ``celery worker`` processes, measured for real."""
