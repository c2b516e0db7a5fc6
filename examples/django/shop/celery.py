"""The Celery app, instrumented where it is made."""

import os

from celery import Celery

from otel_celery_memory import CeleryMemoryInstrumentor

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
CeleryMemoryInstrumentor().instrument()
