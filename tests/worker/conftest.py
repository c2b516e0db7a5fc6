"""Brokers, Redis where it is installed and files otherwise, and a receiver of OTLP."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.rabbitmq_server import rabbitmq_program, running_rabbitmq
from tests.redis_server import running_redis
from tests.worker.harness import Broker, Worker, running_worker


@pytest.fixture(scope="session")
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """Redis on a free port, or kombu's file system broker where there is no redis-server."""
    directory = tmp_path_factory.mktemp("broker")
    if wanted(shutil.which("redis-server"), request.config):
        with running_redis(directory) as url:
            yield Broker.redis(url)
            # Results in reference cycles unsubscribe from their Redis, while it is there.
            gc.collect()
        return
    yield file_system_broker(directory)


def wanted(program: str | None, config: pytest.Config) -> bool:
    """Whether to start a broker: not if its program is missing and it is not required."""
    return program is not None or bool(config.getoption("--require-brokers"))


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
def needs_redis(request: pytest.FixtureRequest) -> None:
    """For a test that starts and ends a Redis itself."""
    if not wanted(shutil.which("redis-server"), request.config):
        pytest.skip("redis-server is not installed")


@pytest.fixture(scope="module")
def rabbitmq(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """RabbitMQ on a free port, for results too."""
    if not wanted(rabbitmq_program(), request.config):
        pytest.skip("rabbitmq-server is not installed")
    with running_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as url:
        yield Broker(url, "rpc://")
        gc.collect()


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
    usual: Broker, receiver: Receiver, tmp_path: Path, **options: object
) -> AbstractContextManager[Worker]:
    given = {"broker": usual, "endpoint": receiver.endpoint, **options}
    return running_worker(directory=tmp_path, **given)  # type: ignore[arg-type]
