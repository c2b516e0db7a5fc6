"""What is combined: each CPython with each Celery, on the oldest and the newest OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matrix.interpreters import Interpreter

CELERY = ("5.3", "5.4", "5.5", "5.6", "5.7")
OTEL = ("lowest", "newest")
_LOWEST_OTEL = (
    "opentelemetry-api==1.38.0",
    "opentelemetry-sdk==1.38.0",
    "opentelemetry-exporter-otlp==1.38.0",
    "opentelemetry-instrumentation==0.59b0",
    "opentelemetry-instrumentation-celery==0.59b0",
)
"""The bounds of pyproject.toml; a test compares."""


@dataclass(frozen=True)
class Combination:
    """One CPython, one series of Celery, and ``lowest`` or ``newest`` OpenTelemetry."""

    interpreter: Interpreter
    celery: str
    otel: str

    @property
    def name(self) -> str:
        """For people, and for the directory of its environment."""
        return f"python-{self.interpreter.name}-celery-{self.celery}-otel-{self.otel}"

    def constraints(self) -> tuple[str, ...]:
        """What pip is told beyond the requirements of the package."""
        celery = f"celery=={self.celery}.*"
        return (celery, *(_LOWEST_OTEL if self.otel == "lowest" else ()))


def combinations(
    interpreters: Sequence[Interpreter], celery: Sequence[str] = CELERY, otel: Sequence[str] = OTEL
) -> Iterator[Combination]:
    """All of them, the oldest first."""
    for interpreter in interpreters:
        for level in otel:
            for series in celery:
                yield Combination(interpreter, series, level)
