"""The output while the demo runs: a live table on a terminal, otherwise a line periodically."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from demo.numbers import Numbers, TaskRow

HEADINGS = ("task", "runs", "RSS delta", "RSS peak", "retained", "traced delta")
"""All but the peak are means of a run."""
_LINE_INTERVAL_S = 2.5


class View(Protocol):
    """Shows the numbers of a moment; a context manager."""

    def show(self, phase: str, numbers: Numbers) -> None:
        """Show where the demo is, and what has arrived so far."""

    def __enter__(self) -> View: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_view() -> View:
    """The best view that this output can have."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return PlainView()
        console = Console()
        if console.is_terminal and not console.is_dumb_terminal:
            return LiveView(console)
    return PlainView()


class PlainView:
    """A line every few seconds, and one at every new phase."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._next_s = 0.0
        self._phase = ""

    def show(self, phase: str, numbers: Numbers) -> None:
        now_s = self._clock_s()
        if phase == self._phase and now_s < self._next_s:
            return
        self._phase = phase
        self._next_s = now_s + _LINE_INTERVAL_S
        parts = [
            f"{now_s - self._began_s:3.0f} s  {phase}",
            ", ".join(f"{task.name} {_size(task.retained_bytes)}" for task in numbers.tasks),
            _processes(numbers),
            numbers.sites[0].name if numbers.sites else "",
        ]
        print(" | ".join(filter(None, parts)), flush=True)

    def __enter__(self) -> PlainView:
        print("Retained by a run of each task | RSS of each process | the line that leaves most")
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to undo."""


class LiveView:
    """A table that is drawn in place and gone when the summary comes."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._began_s = time.monotonic()

    def show(self, phase: str, numbers: Numbers) -> None:
        from rich.table import Table

        caption = [_processes(numbers)]
        if numbers.sites:
            site = numbers.sites[0]
            caption.append(f"{site.place} left most alive: {_size(site.run_bytes)} a run")
        title = f"{phase}, {time.monotonic() - self._began_s:.0f} s"
        table = Table(title=title, caption="\n".join(caption), min_width=76)
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading == "task" else "right")
        for task in numbers.tasks:
            table.add_row(*cells(task))
        self._live.update(table, refresh=True)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def cells(task: TaskRow) -> tuple[str, ...]:
    """A task's row under `HEADINGS`."""
    return (
        task.name,
        str(task.runs),
        _size(task.rss_delta_bytes),
        _size(task.rss_peak_bytes),
        _size(task.retained_bytes),
        _size(task.traced_delta_bytes),
    )


def _size(size_bytes: float | None) -> str:
    return "-" if size_bytes is None else size(size_bytes)


def size(size_bytes: float) -> str:
    """Bytes for people."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        # 1,023.95 KiB would be shown as 1024.0 KiB.
        if abs(size_bytes) >= factor * 0.99995:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} B"


def _processes(numbers: Numbers) -> str:
    return ", ".join(
        f"{'child ' if slot.isdigit() else ''}{slot} {size(rss_bytes)}"
        for slot, rss_bytes in numbers.rss_bytes_by_slot
    )
