"""The hostile tasks, by what they lay their hands on; `HOSTILE` has them all once this is read."""

from tests.hostile.scenarios import HOSTILE
from tests.hostile.tasks import (  # noqa: F401
    descriptors,
    environment,
    interpreter,
    limits,
    of_celery,
    processes,
    signals,
    tracing,
)

__all__ = ["HOSTILE"]
