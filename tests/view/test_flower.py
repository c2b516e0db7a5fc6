"""Flower shows our section of a worker's statistics, in a real browser."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser

from demo.receiver import Receiver
from otel_celery_memory import __version__
from tests.processes import LOOPBACK, answers, free_ports, running, wait_until
from tests.redis_server import running_redis
from tests.view.conftest import TIMEOUT_MS
from tests.worker.harness import CONTROLLED, Broker, running_worker


def test_flower_shows_the_memory_of_a_worker_on_its_page(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    [port] = free_ports(1)
    flower = f"http://{LOOPBACK}:{port}"
    with running_redis(tmp_path) as url, Receiver() as receiver:
        broker = Broker.redis(url)
        command = [sys.executable, "-m", "celery", f"--broker={url}", "flower"]
        command += [f"--address={LOOPBACK}", f"--port={port}"]
        with (
            running_worker(
                broker, tmp_path / "worker", receiver.endpoint, environ=CONTROLLED
            ) as worker,
            running("flower", command, tmp_path) as server,
        ):
            for _ in range(3):
                worker.run("noop")
            wait_until(
                "the reporter has counted the runs",
                lambda: worker.command("stats")["memory"].get("tasks_measured") == 3,
                60,
            )
            server.wait_ready(lambda: answers(f"{flower}/"))
            context = browser.new_context()
            context.set_default_timeout(TIMEOUT_MS)
            page = context.new_page()
            page.goto(f"{flower}/worker/{worker.node}?refresh=1")
            page.click("#worker-tab-other")
            row = page.locator("#tab-other tr", has_text="Memory")
            row.wait_for(state="visible")
            text = row.inner_text()
            assert __version__ in text
            assert f"the reporter, process {worker.reporter()}" in text
            assert "tasks_measured" in text
            context.close()
