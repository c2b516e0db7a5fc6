"""The broker, the receiver and the workers of `tests.worker`."""

from tests.worker.conftest import broker, receiver, start

__all__ = ["broker", "receiver", "start"]
