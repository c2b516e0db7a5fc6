"""Workers of the named app are asked, and what they answer is checked like what they send."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from otel_celery_memory.view.application import Feed, application
from otel_celery_memory.view.otlp import TEXT_MAX
from otel_celery_memory.view.remote import CAPTURES_MAX, AppError, Remote, Told
from otel_celery_memory.view.store import Store
from tests.unit.view.an_app import app
from tests.unit.view.examples import AROUND, BEGAN_S, WORKER, rss, shown_worker, store_with
from tests.unit.view.serving import ask, served

NAME = "tests.unit.view.an_app"


class Answers:
    """Stands for the broker: keeps what was asked, and answers the same to all."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, Any, Any]] = []

    def __call__(self, command: str, arguments: Any, *, destination: Any, **_: Any) -> Any:
        self.asked.append((command, arguments, destination))
        if isinstance(self.answer, Exception):
            raise self.answer
        return [{WORKER.node: self.answer}]


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> tuple[Remote, Answers]:
    answers = Answers(answer)
    monkeypatch.setattr(app.control, "broadcast", answers)
    return Remote(NAME), answers


def test_an_app_that_cannot_be_imported_is_told_why() -> None:
    with pytest.raises(AppError, match="no_such_app"):
        Remote("no_such_app.at_all")


def test_tasks_in_flight_and_captures_are_told_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = {"number": 3, "state": "done", "sites": 5, "file": "/tmp/a.json", "extra": [1]}
    remote, _ = answering(
        monkeypatch,
        {
            "processes": [{"slot": "0", "task": "feeds.refresh"}, {"slot": "1", "task": None}],
            "captures": [capture],
        },
    )
    del capture["extra"]
    assert remote.ask() == {WORKER.node: Told({"0": "feeds.refresh"}, (capture,))}


@pytest.mark.parametrize(
    "answer", [None, "text", [], {"processes": 7, "captures": {}}, {"processes": [1, {}]}]
)
def test_an_answer_without_meaning_tells_nothing(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    remote, _ = answering(monkeypatch, answer)
    assert remote.ask() == {WORKER.node: Told({}, ())}


def test_long_answers_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "x" * 10_000
    answer = {"processes": [{"slot": "0", "task": long}], "captures": [{"file": long}] * 1_000}
    remote, _ = answering(monkeypatch, answer)
    told = remote.ask()[WORKER.node]
    assert len(told.tasks["0"]) == TEXT_MAX
    assert len(told.captures) == CAPTURES_MAX
    assert told.captures[0] == {"file": "x" * TEXT_MAX}


def test_a_process_is_shown_with_what_its_worker_tells() -> None:
    store = store_with(rss("0", 1))
    assert shown_worker(store)["answers"] is False
    store.take_answers({WORKER.node: Told({"0": "feeds.refresh"}, ({"number": 1},))})
    worker = shown_worker(store)
    assert worker["answers"] is True
    assert worker["captures"] == [{"number": 1, "key": None}]
    assert worker["processes"][0]["task"] == "feeds.refresh"


@pytest.fixture
def feed() -> Feed:
    store = Store(BEGAN_S)
    store.take_metrics(WORKER, [rss("main", 1)], BEGAN_S)
    return Feed(store, AROUND, lambda *_: None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, feed: Feed) -> Iterator[tuple[int, Answers]]:
    remote, answers = answering(monkeypatch, {"ok": "begun"})
    with served(application(feed, ("127.0.0.1",), remote)) as port:
        yield port, answers


def press(port: int, node: str = WORKER.node, **headers: str) -> tuple[int, bytes]:
    """What the page's button asks for."""
    given = {"Origin": f"http://127.0.0.1:{port}", "X-Worker": node, **headers}
    answer = ask(port, "/captures", b"", given)
    return answer.status, answer.body


def test_the_page_s_button_asks_that_worker(asked: tuple[int, Answers]) -> None:
    port, answers = asked
    assert press(port) == (200, b'{"error":null}')
    assert answers.asked == [("memory_capture", {"amount": "10"}, [WORKER.node])]


def test_another_page_or_another_name_asks_nobody(asked: tuple[int, Answers]) -> None:
    port, answers = asked
    assert press(port, Origin="http://evil.example")[0] == 403
    assert press(port, Origin="null")[0] == 403
    assert press(port, "other@box")[0] == 404
    assert answers.asked == []


def test_what_a_worker_or_a_broker_refuses_is_told(asked: tuple[int, Answers]) -> None:
    port, answers = asked
    answers.answer = {"error": "another capture runs"}
    assert press(port) == (200, b'{"error":"another capture runs"}')
    answers.answer = OSError("no broker")
    assert press(port) == (200, b'{"error":"not sent: OSError"}')


def test_without_an_app_there_is_nobody_to_ask(feed: Feed) -> None:
    with served(application(feed, ("127.0.0.1",))) as port:
        assert press(port)[0] == 409
