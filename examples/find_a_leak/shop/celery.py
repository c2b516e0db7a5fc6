"""The shop's Celery app, which is instrumented."""

from __future__ import annotations

import os

from celery import Celery

from otel_celery_memory import CeleryMemoryInstrumentor

app = Celery("shop", broker=os.environ.get("BROKER_URL", "redis://localhost:6379/0"))
app.conf.update(include=["shop.feeds", "shop.mail"], task_ignore_result=True)
CeleryMemoryInstrumentor().instrument()
