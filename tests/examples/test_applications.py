"""Each example's worker leaks, and who watches it is told the task and the line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.processes import Server, free_ports, running, wait_until
from tests.redis_server import running_redis

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
IN_A_HURRY = {
    "OTEL_CELERY_MEMORY_WARM_UP": "0",
    "OTEL_CELERY_MEMORY_SITES_INTERVAL": "2",
    "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
}
FOUND_WITHIN_S = 180.0
ORDERS_A_LOOK = 10


@dataclass(frozen=True)
class Example:
    """How an application is started, as the documentation says, and which task leaks where."""

    name: str
    app: str
    web: tuple[str, ...]
    source: str
    task: str
    before: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The name of the line that leaks: ``shop/tasks.py:18``."""
        lines = (EXAMPLES / self.name / self.source).read_text("utf-8").splitlines()
        [number] = [at for at, line in enumerate(lines, 1) if line.endswith("# the leak")]
        return f"{self.source}:{number}"


FOUND = (
    Example(
        *("django", "shop"),
        ("django", "runserver", "--noreload", "127.0.0.1:{port}"),
        *("shop/tasks.py", "shop.tasks.bill"),
        ("django", "migrate", "--run-syncdb"),
    ),
    Example(
        *("flask", "shop.worker"),
        ("flask", "--app", "shop", "run", "--port", "{port}"),
        *("shop.py", "shop.bill"),
    ),
    Example(
        *("fastapi", "shop.worker"),
        ("uvicorn", "shop:app", "--port", "{port}"),
        *("shop.py", "shop.bill"),
    ),
)


@contextmanager
def started(
    example: Example, broker: str, receiver: Receiver, directory: Path
) -> Iterator[tuple[str, Server]]:
    """Its web server and its worker: where orders are posted, and the worker."""
    port = free_ports(1)[0]
    where = directory / example.name
    shutil.copytree(EXAMPLES / example.name, where, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {
        **os.environ,
        "BROKER_URL": broker,
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_SERVICE_NAME": example.name,
        **IN_A_HURRY,
    }
    if example.name == "django":
        environment["DJANGO_SETTINGS_MODULE"] = "shop.settings"

    def command(*module: str) -> list[str]:
        return [sys.executable, "-m", *(part.format(port=port) for part in module)]

    if example.before:
        with running("before", command(*example.before), where, environment) as server:
            assert server.process.wait(timeout=300) == 0, server.log_tail()
    node = f"{example.name}@example"
    works = command("celery", "-A", example.app, "worker", "-c", "1", "-n", node)
    url = f"http://127.0.0.1:{port}/orders"
    with (
        running("web", command(*example.web), where, environment) as web,
        running("worker", works, where, environment) as worker,
    ):
        web.wait_ready(lambda: ordered(url))
        yield url, worker


def ordered(url: str) -> bool:
    """Whether an order was taken."""
    data = urllib.parse.urlencode({"customer": "a customer"}).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=20) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def is_found(example: Example, receiver: Receiver) -> bool:
    """Whether the line that leaks was first in a ranking, by runs that were traced as a whole."""
    return any(
        event.name == "celery.memory.allocation_site"
        and event.resource.get("service.name") == example.name
        and event.attributes["celery.memory.site.rank"] == 1
        and event.attributes["celery.memory.site.name"] == example.line
        and event.attributes.get("celery.task.name") == example.task
        and event.attributes["celery.memory.site.window"] == "complete"
        for event in list(receiver.received.events)
    )


def test_the_line_that_leaks_is_named_first_in_each_example(tmp_path: Path) -> None:
    """All three at once: what takes long is waiting for rankings."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        running_examples = {}
        for example in FOUND:
            (tmp_path / f"redis-{example.name}").mkdir()
            broker = stack.enter_context(running_redis(tmp_path / f"redis-{example.name}"))
            running_examples[example] = stack.enter_context(
                started(example, broker, receiver, tmp_path)
            )

        def all_found() -> bool:
            missing = [each for each in FOUND if not is_found(each, receiver)]
            for url, worker in map(running_examples.__getitem__, missing):
                assert worker.process.poll() is None, worker.log_tail()
                for _ in range(ORDERS_A_LOOK):
                    assert ordered(url)
            time.sleep(0.1)
            return not missing

        wait_until("the line of each example is first", all_found, FOUND_WITHIN_S)


def test_django_s_own_tests_find_the_leak_before_it_is_deployed(tmp_path: Path) -> None:
    [example] = [each for each in FOUND if each.name == "django"]
    where = tmp_path / "django"
    shutil.copytree(EXAMPLES / "django", where, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "--settings=shop.settings"],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "FAILED (failures=1)" in done.stderr, done.stderr
    assert "LeakError: shop.tasks.bill leaks" in done.stderr
    assert f"Allocated at {example.line} in bill" in done.stderr
    assert "held by shop.tasks.BILLED" in done.stderr


@pytest.mark.parametrize("name", [example.name for example in FOUND])
def test_an_example_has_few_lines(name: str) -> None:
    sources = sorted((EXAMPLES / name).rglob("*.py"))
    lines = [line for each in sources for line in each.read_text("utf-8").splitlines() if line]
    assert sources
    assert len(lines) <= 90
