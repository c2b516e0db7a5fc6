"""The Celery app of `benchmarks.leaky_and_fixed`: tasks that leak, and each one mended."""

from __future__ import annotations

import collections
import functools
import os

from celery import Celery

from otel_celery_memory import CeleryMemoryInstrumentor

app = Celery("bench", broker=os.environ["TEST_BROKER"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
CeleryMemoryInstrumentor().instrument()

_KEPT = 100
_results: list[str] = []
_recent: collections.deque[str] = collections.deque(maxlen=_KEPT)


@app.task(name="bench.list_leaky")
def list_leaky(number: int) -> None:
    """Keeps every result in a list of the module."""
    _results.append(str(number).rjust(10_240))


@app.task(name="bench.list_fixed")
def list_fixed(number: int) -> None:
    """Keeps the last hundred."""
    _recent.append(str(number).rjust(10_240))


@functools.lru_cache(maxsize=None)  # noqa: UP033
def _parsed(number: int) -> list[str]:
    return [f"{number}/{line}".rjust(180) for line in range(40)]


@functools.lru_cache(maxsize=_KEPT)
def _parsed_lately(number: int) -> list[str]:
    return [f"{number}/{line}".rjust(180) for line in range(40)]


@app.task(name="bench.cache_leaky")
def cache_leaky(number: int) -> int:
    """Caches without a bound."""
    return len(_parsed(number))


@app.task(name="bench.cache_fixed")
def cache_fixed(number: int) -> int:
    """Caches the last hundred."""
    return len(_parsed_lately(number))
