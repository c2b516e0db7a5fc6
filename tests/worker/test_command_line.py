"""``celery memory`` and ``inspect memory`` from clients that are instrumented, and that are not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import wait_until
from tests.worker.harness import CONTROLLED, ROOT, Broker, Start, worker_environ

BIN = Path(sys.executable).parent
PLAIN = """
import json, os
from celery import Celery
app = Celery("client", broker=os.environ["TEST_BROKER"], backend=os.environ["TEST_BACKEND"])
app.conf.broker_transport_options = json.loads(os.environ.get("TEST_TRANSPORT_OPTIONS", "{}"))
"""


def celery(
    broker: Broker, directory: Path, *words: str, app: str = "plain"
) -> subprocess.CompletedProcess[str]:
    """Celery's command line with an app that nobody has instrumented, or another one."""
    (directory / "plain.py").write_text(PLAIN)
    environ = worker_environ(broker, "http://127.0.0.1:9", CONTROLLED)
    return subprocess.run(
        [str(BIN / "celery"), f"--app={app}", "--no-color", *words],
        env={**environ, "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)])},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_command_is_answered_to_a_client_that_is_not_instrumented(
    start: Start, broker: Broker, tmp_path: Path
) -> None:
    with start(arguments=["--concurrency=1"], environ=CONTROLLED) as worker:
        worker.run("noop")
        wait_until("there is a view", lambda: "ok" in worker.command("memory"), 30)
        bare = celery(broker, tmp_path, "memory")
        to_it = ("--timeout=10", f"--destination={worker.node}")
        viewed = celery(broker, tmp_path, "memory", "view", *to_it)
        as_json = celery(broker, tmp_path, "memory", "view", "--json", *to_it)
        inspected = celery(broker, tmp_path, "inspect", *to_it, "memory")
        traced = celery(broker, tmp_path, "memory", "tracing", "off", *to_it)
        refused = celery(broker, tmp_path, "memory", "capture", "no", *to_it)
        captured = celery(broker, tmp_path, "memory", "capture", "3", "--task=a.b", *to_it)
        counted = celery(broker, tmp_path, "memory", "census", "30s", *to_it)
        worker.stop()
    # It waits for a second alone, which may be too short here.
    assert bare.returncode in (0, 69), bare.stderr
    assert viewed.returncode == 0, viewed.stderr
    # Before that is whether a leak is suspected, once the first step is over.
    assert re.match(rf"{worker.node}\n(no leak is suspected\n\n)?tracing budget: ", viewed.stdout)
    assert json.loads(as_json.stdout)[worker.node]["memory"]["main_pid"] == worker.pid
    assert inspected.returncode == 0, inspected.stderr
    assert "tracing budget: " in inspected.stdout
    assert (traced.returncode, traced.stdout.count(worker.node)) == (0, 1), traced.stderr
    assert refused.returncode == 1
    assert "error: 'no' is neither runs from 1 to" in refused.stdout
    assert captured.returncode == 0, captured.stdout
    # One at a time: the capture that has begun is in its way, or it has begun itself.
    assert re.match(rf"{worker.node}\n\S", counted.stdout)


def test_a_worker_that_is_not_instrumented_says_so(
    start: Start, broker: Broker, tmp_path: Path
) -> None:
    environ = {**CONTROLLED, "TEST_INSTRUMENT": "none"}
    with start(arguments=["--pool=solo"], environ=environ) as worker:
        worker.run("noop")
        worker.command("ping")
        shown = celery(broker, tmp_path, "memory", "view", "--timeout=10", f"-d{worker.node}")
        worker.stop()
    assert shown.returncode == 1
    assert shown.stdout == (
        f"{worker.node}\nerror: this worker is not instrumented by otel_celery_memory, or not "
        "ready yet\n"
    )


def test_where_no_worker_answers_it_exits_as_inspect_does(broker: Broker, tmp_path: Path) -> None:
    shown = celery(broker, tmp_path, "memory", "view", "--timeout=0.5", "-dnobody@nowhere")
    assert (shown.returncode, shown.stderr) == (69, "Error: no worker answered within 0.5 s\n")


@pytest.mark.parametrize(
    "words", [["--help"], ["memory", "--help"], ["memory", "tracing", "--help"]]
)
def test_help_names_what_there_is(broker: Broker, tmp_path: Path, words: list[str]) -> None:
    shown = celery(broker, tmp_path, *words)
    assert shown.returncode == 0, shown.stderr
    wanted = {"--help": "memory", "memory": "census", "memory tracing": "budget|always|off"}
    assert wanted[" ".join(words[:-1]) or "--help"] in shown.stdout


def test_opentelemetry_s_command_line_takes_our_settings() -> None:
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), "--help"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "--celery_memory_tracing CELERY_MEMORY_TRACING" in done.stdout
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), "--celery_memory_tracing=off", "printenv"],
        env={**os.environ, "OTEL_SDK_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "OTEL_CELERY_MEMORY_TRACING=off\n" in done.stdout
