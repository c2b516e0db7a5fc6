"""What `console` prints of an emitter's telemetry, for people."""

from __future__ import annotations

import re

from tests.telemetry.receiving import in_a_process

PRINTED = """
from otel_celery_memory import conventions as c
from otel_celery_memory.telemetry.metrics import distribution, observe_levels
from otel_celery_memory.telemetry.pipeline import open_pipeline
pipeline = open_pipeline("w@box", 3600.0)
measured = {"shop.a": 2, "shop.b": 1}
attributes = {c.TASK_STATE: "SUCCESS", c.EXCLUSIVE: True}
observe_levels(pipeline.meter, {
    c.MEASURED: lambda: [(n, {c.TASK_NAME: name, **attributes}) for name, n in measured.items()],
    c.MEMORY: lambda: [(3 << 20, {c.SLOT: "main"}), (1 << 20, {c.SLOT: "0"})],
})
retained = distribution(c.HEAP_RETAINED, pipeline.histogram)
peak = distribution(c.RSS_PEAK, pipeline.histogram)
for size, direction in ((4096, c.GROW), (1024, c.SHRINK), (9999, c.WARM_UP)):
    retained.record(size, {c.TASK_NAME: "shop.b", c.DIRECTION: direction})
peak.record(2 << 20, {c.TASK_NAME: "shop.b"})
pipeline.send_metrics.__self__._function()
print("again")
pipeline.send_metrics.__self__._function()
measured["shop.a\\x1b[2J"] = 1
pipeline.shutdown()
"""


def test_the_console_has_the_processes_and_the_tasks_that_retain_most_while_tasks_run() -> None:
    output = in_a_process(PRINTED, OTEL_METRICS_EXPORTER="console", OTEL_LOGS_EXPORTER="none")
    first, again = (re.sub(r"(?m)^\d\d:\d\d:\d\d ", "", text) for text in output.split("again\n"))
    assert first.splitlines() == [
        "w@box: 4.0 MiB in 2 processes: main 3.0 MiB, 0 1.0 MiB",
        "  shop.b: 1 run, 1.5 KiB retained a run (of 2 sampled), peak 2.0 MiB",
        "  shop.a: 2 runs",
    ]
    # Nothing had run in between, and nothing controls the terminal.
    assert again.splitlines()[-1] == "  shop.a?[2J: 1 run"
    assert again.count("w@box") == 1
