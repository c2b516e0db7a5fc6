"""A client method for each remote command, as Celery has one for each of its own."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.worker.control import Panel

from otel_celery_memory.worker.remote_control import commands


@pytest.fixture
def app() -> Celery:
    return Celery("client", broker="memory://", set_as_current=False)


def test_every_remote_command_of_the_process_has_a_client_method(app: Celery) -> None:
    # As Celery's own tests want it, ours among them.
    kinds = {name: info.type for name, info in Panel.meta.items()}
    assert {"memory", "memory_capture", "memory_census", "memory_tracing"} <= kinds.keys()
    for name, kind in kinds.items():
        assert callable(getattr(app.control.inspect() if kind == "inspect" else app.control, name))


def test_they_broadcast_what_the_commands_take(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def broadcast(*args: Any, **kwargs: Any) -> list[Any]:
        sent.append((args, kwargs))
        return [{"w@h": {"ok": "done"}}]

    monkeypatch.setattr(app.control, "broadcast", broadcast)
    assert app.control.inspect(["w@h"], timeout=2).memory() == {"w@h": {"ok": "done"}}
    assert sent[0][0] == ("memory",)
    assert sent[0][1]["destination"] == ["w@h"]
    app.control.memory_capture(30, 0.5, ["w@h"], reply=True)
    assert sent[1] == (
        ("memory_capture", {"amount": "30", "max_added_latency": 0.5}, ["w@h"]),
        {"reply": True},
    )
    app.control.memory_census("30s", task="shop.build_report")
    arguments = {"amount": "30s", "max_added_latency": "default", "task": "shop.build_report"}
    assert sent[2] == (("memory_census", arguments, None), {})
    app.control.memory_tracing("off")
    assert sent[3] == (("memory_tracing", {"mode": "off"}, None), {})


def test_a_method_that_is_there_already_is_left_as_it_is() -> None:
    class Client:
        def memory(self) -> str:
            return "Celery's own"

    commands.add_client_methods(Client, memory=lambda self: "ours", other=lambda self: "ours")
    made: Any = Client()
    assert (made.memory(), made.other()) == ("Celery's own", "ours")
    assert Client.other.__qualname__.endswith("Client.other")  # type: ignore[attr-defined]
