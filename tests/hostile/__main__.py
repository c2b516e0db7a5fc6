"""``python -m tests.hostile POOL [NAME...]``: some hostile tasks alone, and what differs."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from demo.receiver import Receiver
from tests.hostile.comparison import differences
from tests.hostile.tasks import HOSTILE
from tests.redis_server import running_redis
from tests.worker.harness import Broker


def main(pool: str, *names: str) -> None:
    """Runs those of these names, or all of the pool that share a worker."""
    began_s = time.monotonic()
    wanted = [HOSTILE[name] for name in names] or [
        each
        for each in HOSTILE.values()
        if pool.removeprefix("spoilt-") in each.pools
        and each.spoils == pool.startswith("spoilt-")
        and each.shares_worker
    ]
    directory = Path(tempfile.mkdtemp(prefix="hostile-"))

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began_s:7.1f} s  {text}", flush=True)

    with running_redis(directory) as url, Receiver() as receiver:
        broker = Broker.redis(url)
        for line in differences(
            wanted, pool.removeprefix("spoilt-"), broker, directory, receiver.endpoint, tell
        ):
            print(line)
    tell(f"{len(wanted)} tasks; logs in {directory}")


main(*sys.argv[1:])
