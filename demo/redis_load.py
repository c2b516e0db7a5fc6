"""Publishes the demo's tasks to Redis until it is ended: the load of compose.yaml."""

from __future__ import annotations

import time
from itertools import cycle

from demo.app import app
from demo.load import PATTERN

RATE_PER_S = 3
"""Slow enough that the worker's container lasts for some twenty minutes between two kills."""


def main() -> None:
    """Publish at a steady rate."""
    for name, argument in cycle(PATTERN):
        app.send_task(name, (argument,))
        time.sleep(1 / RATE_PER_S)


if __name__ == "__main__":
    main()
