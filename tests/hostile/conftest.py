"""The broker and the receiver of the workers."""

from tests.worker.conftest import broker, receiver

__all__ = ["broker", "receiver"]
