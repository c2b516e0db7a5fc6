"""The worker's bootstep: starts before every other step of the worker, stops after them."""

from __future__ import annotations

import logging
from typing import Any, Protocol

from celery import bootsteps

logger = logging.getLogger(__name__)


class Lifecycle(Protocol):
    """What the step drives."""

    def start(self, worker: Any) -> None:
        """The worker starts."""

    def follow_pool(self) -> None:
        """The pool has made its callbacks."""

    def detach(self) -> None:
        """The worker ends."""


class _MemoryStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts before every other step of the worker and stops after them."""

    label = "Memory"
    lifecycle: Lifecycle

    def include(self, parent: Any) -> bool:
        # The order of steps that do not require one another changes with the hash seed. First to
        # start is last to stop: the pool's children have said goodbye by then.
        self.obj = self
        parent.steps.insert(0, self)
        return True

    def start(self, parent: Any) -> None:
        try:
            self.lifecycle.start(parent)
        except OSError as error:
            # The pool is not forked yet: its children begin without us and help themselves.
            logger.warning("otel_celery_memory: no reporter (%s), delivery is in process", error)
            self.lifecycle.detach()
        except Exception:
            logger.exception("otel_celery_memory: the worker runs without being measured")
            self.lifecycle.detach()

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        # Called after the pool, which makes its callbacks anew whenever it is called.
        self.lifecycle.follow_pool()

    def stop(self, parent: Any) -> None:
        self.lifecycle.detach()

    def terminate(self, parent: Any) -> None:
        self.lifecycle.detach()


def step_of(lifecycle: Lifecycle) -> type[bootsteps.StartStopStep]:
    """A step class of its own: Celery makes the instance and passes it nothing of ours."""
    return type("MemoryStep", (_MemoryStep,), {"lifecycle": lifecycle, "name": "Memory"})
