"""What ``console`` prints: a line for each event, and what tasks and processes have, for people.

OpenTelemetry's own console exporters print each record and each collection as indented JSON, some
hundred lines a second of a worker. Who asks for ``console`` wants to read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from opentelemetry.sdk._logs import export as sdk_logs_export
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from otel_celery_memory import conventions as c
from otel_celery_memory.ipc.records import printable, size_text

_TASKS_SHOWN = 5
_NS = 1e9


class ConsoleEvents:
    """An exporter of log records: time, severity, event and sentence, in one line each."""

    def __init__(self, out: TextIO | None = None) -> None:
        """``out`` is standard output, as it is at each export."""
        self._out = out

    def export(self, batch: Sequence[Any]) -> Any:
        """Prints the records."""
        records = (each.log_record for each in batch)
        _print((_event_line(record) for record in records), self._out)
        # Renamed in 1.39.
        results: Any = (
            getattr(sdk_logs_export, "LogRecordExportResult", None)
            or sdk_logs_export.LogExportResult
        )
        return results.SUCCESS

    def shutdown(self) -> None:
        """Nothing to end."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """All is printed at once."""
        return True


class ConsoleMetrics(MetricExporter):
    """An exporter of metrics: the processes' sizes, and the tasks that retain most.

    Prints nothing while no task runs. Sums are cumulative, whatever is preferred for OTLP.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__()
        self._out = out
        self._runs = 0

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Prints what the collection has, if runs were measured since the last one."""
        points = _points(metrics_data)
        tasks = _tasks(points)
        runs = sum(task.runs for task in tasks)
        if runs != self._runs:
            self._runs = runs
            _print(_lines(metrics_data, points, tasks), self._out)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """All is printed at once."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to end."""


Points = Mapping[str, Sequence[Any]]
"""The data points of a collection, by the metric's name."""


@dataclass
class _Task:
    """A task's numbers: bytes, but for the counts."""

    name: str
    runs: int = 0
    retained: float = 0
    sampled: int = 0
    peak: float | None = None

    @property
    def retained_per_run(self) -> float:
        return self.retained / self.sampled if self.sampled else 0.0

    @property
    def line(self) -> str:
        """In words, as ``inspect memory`` heads its columns."""
        parts = [f"{self.runs:,} run{'s' * (self.runs != 1)}"]
        if self.sampled:
            size = size_text(round(self.retained_per_run))
            parts.append(f"{size} retained a run (of {self.sampled:,} sampled)")
        if self.peak is not None:
            parts.append(f"peak {size_text(round(self.peak))}")
        return f"{self.name}: {', '.join(parts)}"


def _event_line(record: Any) -> str:
    when_ns = record.timestamp or record.observed_timestamp or time.time_ns()
    severity = getattr(record.severity_number, "name", "") or "-"
    text = record.body if isinstance(record.body, str) else str(record.body or "")
    return f"{_clock(when_ns / _NS)} {severity:5} {record.event_name or ''}: {text}"


def _points(data: MetricsData) -> Points:
    return {
        metric.name: metric.data.data_points
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def _tasks(points: Points) -> list[_Task]:
    """The tasks of a collection, those first that retain most."""
    found: dict[str, _Task] = {}

    def of(point: Any) -> _Task:
        name = str(point.attributes.get(c.TASK_NAME, ""))
        return found.setdefault(name, _Task(name))

    for point in points.get(c.MEASURED.name, ()):
        of(point).runs += point.value
    for point in points.get(c.HEAP_RETAINED.name, ()):
        direction = point.attributes.get(c.DIRECTION)
        if direction != c.WARM_UP:
            task = of(point)
            task.sampled += point.count
            task.retained += -point.sum if direction == c.SHRINK else point.sum
    for point in points.get(c.RSS_PEAK.name, ()):
        of(point).peak = getattr(point, "max", None)
    return sorted(found.values(), key=lambda task: (-task.retained_per_run, task.name))


def _lines(data: MetricsData, points: Points, tasks: Sequence[_Task]) -> Iterable[str]:
    now = _clock(time.time())
    node = data.resource_metrics[0].resource.attributes.get("service.instance.id", "")
    sizes = {
        str(point.attributes.get(c.SLOT)): point.value for point in points.get(c.MEMORY.name, ())
    }
    each = ", ".join(f"{slot} {size_text(size)}" for slot, size in sizes.items())
    total = size_text(sum(sizes.values()))
    yield f"{now} {node}: {total} in {len(sizes)} processes: {each}"
    for task in tasks[:_TASKS_SHOWN]:
        yield f"{now}   {task.line}"
    if len(tasks) > _TASKS_SHOWN:
        yield f"{now}   and {len(tasks) - _TASKS_SHOWN:,} tasks more"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _print(lines: Iterable[str], out: TextIO | None) -> None:
    out = out or sys.stdout
    text = "".join(f"{printable(line)}\n" for line in lines)
    # One write: the worker's processes may write to the same place.
    out.write(text)
    out.flush()
