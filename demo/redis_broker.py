"""Celery's configuration for the demo in containers: the Redis that ``BROKER_URL`` names."""

from __future__ import annotations

import os

broker_url = os.environ["BROKER_URL"]
broker_connection_retry_on_startup = True
task_ignore_result = True
