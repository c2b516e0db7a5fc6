"""An app whose workers nobody started."""

from __future__ import annotations

from celery import Celery

app = Celery("an_app", broker="memory://", set_as_current=False)
