# The demo's worker and its load, for compose.yaml.
FROM python:3.12-slim
WORKDIR /demo
COPY pyproject.toml README.md LICENSE ./
COPY otel_celery_memory otel_celery_memory
RUN pip install --no-cache-dir . 'celery[redis]>=5.3,<6'
COPY demo demo
RUN useradd --create-home demo
USER demo
