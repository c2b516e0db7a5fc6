"""Where `instrument` may be called, and what it starts there: a worker, a child, a web process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.worker.harness import ROOT, Broker, Start, measured, reporters_of, worker_environ

BIN = Path(sys.executable).parent


def test_opentelemetry_instrument_measures_a_worker_without_a_line_of_code(
    start: Start, receiver: Receiver
) -> None:
    prefix = [str(BIN / "opentelemetry-instrument"), str(BIN / "celery")]
    environ = {"TEST_INSTRUMENT": "none", "OTEL_CELERY_MEMORY_FRAMES": "many"}
    with start(arguments=["--concurrency=2"], prefix=prefix, environ=environ) as worker:
        for _ in range(10):
            worker.run("noop")
        assert len(reporters_of(worker.pid)) == 1
        worker.stop()
    assert measured(receiver.received) == {"noop": 10}
    # An invalid value is logged once and the default is used: nobody could catch an error.
    assert worker.log().count("OTEL_CELERY_MEMORY_FRAMES='many' cannot be used") == 1


def log_of_ten_tasks(start: Start, receiver: Receiver, environ: Mapping[str, str]) -> str:
    """The log of a worker that measures ten tasks without a reporter."""
    with start(arguments=["--concurrency=2"], environ=environ) as worker:
        for _ in range(10):
            worker.run("noop")
        assert reporters_of(worker.pid) == []
        worker.stop()
    assert measured(receiver.received) == {"noop": 10}
    return worker.log()


def test_called_in_worker_process_init_each_child_exports_by_itself_and_is_warned(
    start: Start, receiver: Receiver
) -> None:
    environ = {"TEST_INSTRUMENT": "worker_process_init"}
    log = log_of_ten_tasks(start, receiver, environ)
    assert "call it in the module that makes the Celery app" in log


def test_delivery_in_process_needs_no_reporter_and_gives_no_warning(
    start: Start, receiver: Receiver
) -> None:
    environ = {"OTEL_CELERY_MEMORY_DELIVERY": "inprocess"}
    log = log_of_ten_tasks(start, receiver, environ)
    (line,) = [line for line in log.splitlines() if "otel_celery_memory:" in line]
    assert "INFO/MainProcess] otel_celery_memory: " in line
    assert "by the processes that run them; " in line
    # One writer a stream.
    instances = {point.resource["service.instance.id"] for point in receiver.received.points}
    assert instances == {"w@test/0", "w@test/1"}


@pytest.mark.parametrize("executable", ["", "/nonexistent/python"])
def test_where_the_interpreter_cannot_be_started_again_delivery_is_in_process(
    start: Start, receiver: Receiver, executable: str
) -> None:
    log = log_of_ten_tasks(start, receiver, {"TEST_EXECUTABLE": executable})
    assert log.count("otel_celery_memory: no reporter") == 1


def run_script(broker: Broker, script: str, **environ: str) -> dict[str, object]:
    """Run a script that prints one JSON object, in an interpreter of its own."""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env=worker_environ(broker, "http://127.0.0.1:9", environ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    result: dict[str, object] = json.loads(finished.stdout.splitlines()[-1])
    return result


WEB_PROCESS = """
import json, os, subprocess, threading
from pathlib import Path
def state():
    return {
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0]
                              for n in os.listdir("/proc/self/fd")
                              if os.path.exists(f"/proc/self/fd/{n}")),
        "children": Path("/proc/self/task", str(os.getpid()), "children").read_text(),
        "threads": threading.active_count(),
    }
from celery import signals
import tests.worker.app as web
web.app.conf.task_always_eager = True
web.noop.delay().get()
print(json.dumps({
    "after": state(),
    "prerun": len(signals.task_prerun.receivers), "postrun": len(signals.task_postrun.receivers),
}))
"""


def test_a_web_process_that_imports_the_module_has_started_nothing(broker: Broker) -> None:
    # Celery itself opens what it needs for an eager task: compare with a run without us.
    assert run_script(broker, WEB_PROCESS) == run_script(
        broker, WEB_PROCESS, TEST_INSTRUMENT="none"
    )


@pytest.mark.parametrize("command", [["inspect", "ping", "--timeout=1"], ["report"]])
def test_other_celery_commands_that_import_the_module_start_nothing(
    broker: Broker, receiver: Receiver, command: list[str]
) -> None:
    finished = subprocess.run(
        [str(BIN / "celery"), "--app=tests.worker.app", *command],
        env=worker_environ(broker, receiver.endpoint),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # Nobody answers a ping: 69. What matters is that the command came to its end.
    assert finished.returncode == (69 if "ping" in command else 0), finished.stderr
    assert "otel_celery_memory" not in finished.stderr.replace("tests.worker.app", "")
    assert receiver.received.requests == 0


EAGER_WITH_PROVIDERS = """
import json
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_celery_memory import CeleryMemoryInstrumentor
reader = InMemoryMetricReader()
CeleryMemoryInstrumentor().instrument(meter_provider=MeterProvider([reader]), tracing="always")
import tests.worker.app as web
web.noop.apply().get()  # imports what the first task needs
web.keep.apply(args=(1 << 20,)).get()
CeleryMemoryInstrumentor().uninstrument()
web.keep.apply(args=(1 << 20,)).get()
(scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
counts = {m.name: [[p.value if hasattr(p, "value") else p.sum, dict(p.attributes)]
                   for p in m.data.data_points]
          for m in scope.metrics if m.name in
          ("celery.task.memory.measured", "celery.task.memory.traced.delta")}
import tracemalloc
from celery import signals
print(json.dumps({"counts": counts, "scope": scope.scope.name, "tracing": tracemalloc.is_tracing(),
                  "receivers": len(signals.task_prerun.receivers)}))
"""


def test_with_providers_eager_tasks_are_measured_until_uninstrument(broker: Broker) -> None:
    found = run_script(broker, EAGER_WITH_PROVIDERS, TEST_INSTRUMENT="none")
    counts = found["counts"]
    assert isinstance(counts, dict)
    (traced_bytes,) = [
        value
        for value, attributes in counts["celery.task.memory.traced.delta"]
        if attributes["celery.task.name"] == "tests.worker.app.keep"
    ]
    assert traced_bytes == pytest.approx(1 << 20, rel=0.05)
    assert counts["celery.task.memory.measured"] == [
        [
            1,
            {
                "celery.task.name": f"tests.worker.app.{task}",
                "celery.task.state": "SUCCESS",
                "celery.memory.exclusive": True,
            },
        ]
        for task in ("noop", "keep")
    ]
    assert found["scope"] == "otel_celery_memory"
    assert (found["tracing"], found["receivers"]) == (False, 0)


TWICE_AND_UNDO = """
import json, logging, os, sys, time
from pathlib import Path
records = []
class Keep(logging.Handler):
    def emit(self, record): records.append(record.getMessage())
logging.getLogger().addHandler(Keep())
from celery import signals
from celery.worker import WorkController
from otel_celery_memory import CeleryMemoryInstrumentor
import tests.worker.app as module
CeleryMemoryInstrumentor().instrument()
names = [n for n in signals.__all__ if getattr(getattr(signals, n), "receivers", None) is not None]
def state():
    return {
        "fds": len(os.listdir("/proc/self/fd")),
        "children": Path("/proc/self/task", str(os.getpid()), "children").read_text(),
        "steps": len(module.app.steps["worker"]),
        "ours": sum("otel_celery_memory" in repr(r) for n in names
                    for r in getattr(signals, n).receivers),
    }
worker = WorkController(app=module.app, pool_cls="solo", hostname="w@undo")
attached = state()
CeleryMemoryInstrumentor().uninstrument()
print(json.dumps({"warnings": sum("already instrumented" in r for r in records),
                  "attached": attached, "after": state()}))
"""


def test_instrumenting_twice_counts_once_and_uninstrument_leaves_nothing(broker: Broker) -> None:
    found = run_script(broker, TWICE_AND_UNDO)
    attached, after = found["attached"], found["after"]
    assert isinstance(attached, dict)
    assert isinstance(after, dict)
    assert found["warnings"] == 1
    assert (attached["steps"], after["steps"]) == (1, 0)
    assert attached["ours"] > 0
    assert after["ours"] == 0
    # Rings, control page, status page and journal, with a spare one each.
    assert attached["fds"] - after["fds"] == 8
    assert after["children"] == ""
