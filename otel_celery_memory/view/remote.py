"""Asks workers themselves, by Celery's remote control: what they run now, and for captures.

For `view -A shop`: the user's app is imported here, as ``celery inspect`` imports it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_celery_memory.view.otlp import TEXT_MAX

ANSWERS_MAX = 50
CAPTURES_MAX = 20
_PROCESSES_MAX = 1_000
_TIMEOUT_S = 1.5
CAPTURE_RUNS = "10"


class AppError(Exception):
    """The app cannot be imported; the message is one line."""


@dataclass(frozen=True)
class Told:
    """What a worker told of itself: its tasks in flight by slot, and its captures."""

    tasks: Mapping[str, str]
    captures: tuple[Mapping[str, object], ...]


class Remote:
    """The workers of one app. Its methods wait for answers: call them off the loop."""

    def __init__(self, name: str) -> None:
        from celery.app.utils import find_app

        if os.getcwd() not in sys.path:  # noqa: PTH109 - compared with what Celery adds
            sys.path.insert(0, os.getcwd())  # noqa: PTH109
        try:
            self._app: Any = find_app(name)
        except Exception as error:  # anything may happen in a module of the user's
            raise AppError(f"{type(error).__name__}: {error}") from None

    def ask(self) -> dict[str, Told]:
        """What each worker that answers tells, by its node name."""
        answers = self._broadcast("memory", {}, None)
        return {node: _told(answer) for node, answer in list(answers.items())[:ANSWERS_MAX]}

    def capture(self, node: str) -> str | None:
        """Asks a worker for a capture of its next runs; why it refused, or ``None``."""
        answers = self._broadcast("memory_capture", {"amount": CAPTURE_RUNS}, [node])
        if node not in answers:
            return "the worker did not answer"
        answer = answers[node]
        error = answer.get("error") if isinstance(answer, dict) else "an answer without meaning"
        return str(error)[:TEXT_MAX] if error else None

    def _broadcast(
        self, command: str, arguments: Mapping[str, str], nodes: list[str] | None
    ) -> dict[str, Any]:
        replies = self._app.control.broadcast(
            command, dict(arguments), destination=nodes, reply=True, timeout=_TIMEOUT_S
        )
        return {node: answer for reply in replies or () for node, answer in reply.items()}


def _told(answer: Any) -> Told:
    """The parts that are shown. What a worker answers is checked like what it sends."""
    told = answer if isinstance(answer, dict) else {}
    processes = [each for each in _list(told.get("processes")) if each.get("task")]
    return Told(
        {
            str(each.get("slot"))[:TEXT_MAX]: str(each["task"])[:TEXT_MAX]
            for each in processes[:_PROCESSES_MAX]
        },
        tuple(
            {
                name: value[:TEXT_MAX] if isinstance(value, str) else value
                for name in ("number", "state", "kind", "sites", "runs", "file", "error")
                if isinstance(value := each.get(name), (str, int))
            }
            for each in _list(told.get("captures"))[:CAPTURES_MAX]
        ),
    )


def _list(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
