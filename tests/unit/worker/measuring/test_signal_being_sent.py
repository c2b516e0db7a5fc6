"""Where instrument() is called from: in a receiver of which of Celery's signals, if in any."""

from __future__ import annotations

from celery.utils.dispatch import Signal

from otel_celery_memory.worker.measuring.signals import signal_being_sent


def test_outside_of_a_receiver_no_signal_is_being_sent() -> None:
    assert signal_being_sent() is None


def test_inside_a_receiver_the_signal_and_its_sender_are_known_however_deep() -> None:
    calls: list[object] = []
    outer, inner = Signal(name="outer"), Signal(name="inner")

    def deep(level: int) -> object:
        return signal_being_sent() if level == 0 else deep(level - 1)

    def in_outer(**_: object) -> None:
        calls.append(deep(0))
        inner.send("sender of inner")
        calls.append(deep(20))

    def in_inner(**_: object) -> None:
        calls.append(deep(3))

    outer.connect(in_outer, weak=False)
    inner.connect(in_inner, weak=False)
    outer.send("sender of outer")
    assert calls == [
        (outer, "sender of outer"),
        (inner, "sender of inner"),
        (outer, "sender of outer"),
    ]
