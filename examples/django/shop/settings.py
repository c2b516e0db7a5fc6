"""Settings of Django and, with the prefix ``CELERY_``, of Celery."""

import os
from pathlib import Path

SECRET_KEY = os.environ.get("SECRET_KEY", "for this example only")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = ["shop"]
ROOT_URLCONF = "shop.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", Path(__file__).parent.parent / "shop.sqlite3"),
    }
}
CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://localhost")
CELERY_TASK_IGNORE_RESULT = True
