"""Browsers are served the page and its data, on this machine and under its names alone."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from otel_celery_memory.view.application import LISTENERS_MAX, Feed, application
from otel_celery_memory.view.page import POLICY, SCRIPTS, live_page
from otel_celery_memory.view.store import Store
from tests.processes import LOOPBACK, wait_until
from tests.unit.view.examples import AROUND, BEGAN_S, WORKER, rss
from tests.unit.view.serving import PATIENCE_S, ask, served


@pytest.fixture
def store() -> Store:
    return Store(BEGAN_S)


@pytest.fixture
def feed(store: Store) -> Iterator[Feed]:
    feed = Feed(store, AROUND, lambda *_: None)
    yield feed
    feed.stopped = True


@pytest.fixture
def port(feed: Feed) -> Iterator[int]:
    with served(application(feed, ("127.0.0.1", "localhost"))) as number:
        yield number
        feed.stopped = True


def test_the_page_and_its_parts_come_with_the_policy(port: int) -> None:
    for path, kind in (("/", "text/html"), (f"/assets/{SCRIPTS[0]}", "text/javascript")):
        answer = ask(port, path)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    assert ask(port, "/").body.decode() == live_page()


@pytest.mark.parametrize(
    "path", ["/assets/page.html", "/assets/../page.py", "/assets/%2e%2e/page.py", "/etc/passwd"]
)
def test_nothing_else_is_served(port: int, path: str) -> None:
    answer = ask(port, path)
    assert answer.status == 404
    assert answer.headers["content-security-policy"] == POLICY


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:4380"])
def test_a_name_of_the_web_that_leads_here_is_refused(port: int, host: str) -> None:
    for path in ("/", "/snapshot.json", "/live", "/report.html"):
        assert ask(port, path, headers={"Host": host}).status == 400


def test_the_snapshot_is_that_of_the_store(port: int, store: Store) -> None:
    store.take_metrics(WORKER, [rss("main", 7)], BEGAN_S)
    found = json.loads(ask(port, "/snapshot.json").body)
    assert [each["processes"][0]["rss"] for each in found["workers"]] == [7]


def test_what_comes_is_told_to_those_who_listen(port: int, store: Store) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_S)
    connection.request("GET", "/live")
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert json.loads(answer.readline().removeprefix(b"data: "))["workers"] == []
    assert answer.readline() == b"\n"
    store.take_metrics(WORKER, [rss("main", 7)], BEGAN_S)
    told = json.loads(answer.readline().removeprefix(b"data: "))
    assert len(told["workers"]) == 1
    connection.close()


def test_there_are_as_many_listeners_as_there_is_room_for(port: int) -> None:
    connections = [http.client.HTTPConnection(LOOPBACK, port) for _ in range(LISTENERS_MAX + 1)]
    statuses = []
    for connection in connections:
        connection.request("GET", "/live")
        answer = connection.getresponse()
        statuses.append(answer.status)
        if answer.status == 200:
            answer.readline()
    for connection in connections:
        connection.close()
    assert statuses == [200] * LISTENERS_MAX + [503]


def test_a_browser_that_is_gone_leaves_its_place_to_another(port: int) -> None:
    def listens() -> http.client.HTTPConnection | None:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE_S)
        connection.request("GET", "/live")
        if connection.getresponse().status == 200:
            return connection
        connection.close()
        return None

    connections = [listens() for _ in range(LISTENERS_MAX)]
    assert None not in connections
    assert listens() is None
    # As a browser's is that has crashed: nothing is said.
    gone = connections.pop()
    assert gone is not None
    gone.sock.shutdown(socket.SHUT_RDWR)
    connections.append(wait_until("there is a place again", listens, PATIENCE_S))
    for connection in connections:
        if connection is not None:
            connection.close()


def test_the_report_is_the_saved_page_as_a_file(port: int) -> None:
    answer = ask(port, "/report.html")
    assert answer.headers["content-disposition"] == 'attachment; filename="celery-memory.html"'
    assert b'"live":false' in answer.body
