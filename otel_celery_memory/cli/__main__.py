"""``python -m otel_celery_memory.cli``, for where console scripts are not on the path."""

from otel_celery_memory.cli import main

raise SystemExit(main())
