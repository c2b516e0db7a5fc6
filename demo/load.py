"""Publishes the demo's tasks at a steady rate, never far ahead of the worker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

RATE_PER_S = 30
BACKLOG_MAX = 60
"""A worker that falls behind gets no more than it can run in a few seconds."""

PATTERN = (
    *(("feeds.refresh", "news"), ("mail.send", "ann@example.com")) * 6,
    *(
        ("mail.send", "bob@example.com"),
        ("reports.render", "Sales"),
        ("mail.send", "cy@example.com"),
    ),
)


class Load:
    """A stream of tasks that is published bit by bit from the demo's only thread."""

    def __init__(self, seconds: float) -> None:
        # Here, because it reads the environment that the demo has prepared by now.
        from demo import broker
        from demo.app import app

        self._outbox = broker.folder("outbox")
        self._inbox = broker.folder("inbox")
        app.conf.broker_transport_options = {
            **broker.broker_transport_options,
            "data_folder_out": str(self._outbox),
        }
        self._app = app
        self._tasks: Iterator[tuple[str, str]] = islice(cycle(PATTERN), round(RATE_PER_S * seconds))
        self.published = 0

    @property
    def waiting(self) -> int:
        """Messages that the worker has not taken yet."""
        return sum(1 for _ in self._inbox.iterdir())

    def publish_until(self, elapsed_s: float) -> None:
        """Publish what is due after `elapsed_s` of the load."""
        room = BACKLOG_MAX - self.waiting
        due = round(RATE_PER_S * elapsed_s) - self.published
        for name, argument in islice(self._tasks, max(min(due, room), 0)):
            self._app.send_task(name, (argument,))
            self.published += 1
        self._post()

    def wake(self) -> None:
        """One message more: a worker without messages polls only every few seconds."""
        self._app.send_task("mail.send", ("dee@example.com",))
        self._post()

    def _post(self) -> None:
        for message in self._outbox.iterdir():
            message.rename(self._inbox / message.name)
