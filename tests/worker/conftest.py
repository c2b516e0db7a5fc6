"""A broker, Redis where it is installed and files otherwise, and a receiver of OTLP."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.redis_server import running_redis
from tests.worker.harness import Broker, Worker, running_worker


@pytest.fixture(scope="session")
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """Redis on a free port, or kombu's file system broker where there is no redis-server."""
    directory = tmp_path_factory.mktemp("broker")
    if shutil.which("redis-server") or request.config.getoption("--require-redis"):
        with running_redis(directory) as url:
            yield Broker.redis(url)
            # Results in reference cycles tell their Redis that they are gone, while it is there.
            gc.collect()
        return
    yield file_system_broker(directory)


def file_system_broker(directory: Path) -> Broker:
    """A broker that needs no server."""
    for name in ("queue", "results", "control", "processed"):
        (directory / name).mkdir()
    queue = str(directory / "queue")
    return Broker(
        "filesystem://",
        (directory / "results").as_uri(),
        {
            "data_folder_in": queue,
            "data_folder_out": queue,
            "control_folder": str(directory / "control"),
            # Or else in the system's directory for temporary files.
            "store_processed": True,
            "processed_folder": str(directory / "processed"),
        },
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers every request."""
    with Receiver() as running:
        yield running


@pytest.fixture
def start(
    broker: Broker, receiver: Receiver, tmp_path: Path
) -> Callable[..., AbstractContextManager[Worker]]:
    """Starts a worker that sends to the receiver; takes the keywords of `running_worker`."""
    return partial(_start, broker, receiver, tmp_path)


def _start(
    broker: Broker, receiver: Receiver, tmp_path: Path, **options: object
) -> AbstractContextManager[Worker]:
    endpoint = options.pop("endpoint", receiver.endpoint)
    return running_worker(broker, tmp_path, endpoint, **options)  # type: ignore[arg-type]
