"""The wheel in an empty environment has all that `check`, a measured worker and the view need."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.processes import LOOPBACK, Server, answers, free_ports, get, running, wait_until

ROOT = Path(__file__).resolve().parents[2]
SHOP = """
from pathlib import Path
from celery import Celery
from otel_celery_memory import CeleryMemoryInstrumentor

app = Celery("shop", broker="filesystem://", backend=(Path.cwd() / "results").as_uri())
app.conf.broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control",
}
CeleryMemoryInstrumentor().instrument()
KEPT = []

@app.task
def keep(size_bytes):
    KEPT.append(bytearray(size_bytes))
"""
SEND = "import shop, sys; [shop.keep.delay(100_000).get(timeout=300) for _ in range(3)]"


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel that was built."""
    found = sorted((ROOT / "dist").glob("*.whl"))
    assert len(found) == 1, "make package builds it"
    return found[0]


@pytest.fixture(scope="session")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of programs of a new environment that has the wheel alone."""
    return installed(str(wheel), tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="session")
def programs_with_view(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the extra for the view."""
    return installed(f"{wheel}[view]", tmp_path_factory.mktemp("environment-with-view"))


def installed(what: str, directory: Path) -> Path:
    """The directory of programs of a new environment."""
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", what]
    subprocess.run([str(directory / "bin" / "python"), *install], check=True)
    return directory / "bin"


@pytest.fixture
def environ(receiver: Receiver, programs: Path) -> dict[str, str]:
    """This environment without ours, and the receiver."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "PYTHON", "VIRTUAL_ENV"))
    }
    return {
        **kept,
        "PATH": f"{programs}:{kept.get('PATH', '')}",
        "NO_PROXY": "127.0.0.1",
        "COLUMNS": "200",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "0.5",
    }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that answers every request."""
    with Receiver() as made:
        yield made


def run(
    programs: Path, environ: Mapping[str, str], directory: Path, name: str, *words: str
) -> subprocess.CompletedProcess[str]:
    """A program of the environment, in a directory of its own."""
    return subprocess.run(
        [str(programs / name), *words],
        env=dict(environ),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_has_the_package_and_its_licence_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/", 1)[0] for name in names}
    assert {re.sub(r"-[^-]*\.dist-info", ".dist-info", each) for each in top} == {
        "otel_celery_memory",
        "otel_celery_memory.dist-info",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # What others have written for browsers is there with its licence.
    vendor = "otel_celery_memory/view/assets/vendor/"
    assert {name.removeprefix(vendor).split(".")[0] for name in names if vendor in name} >= {
        *("preact", "uPlot"),
    }
    licences = {name.rpartition("/")[2] for name in names if f"licenses/{vendor}" in name}
    assert licences == {"preact.LICENSE", "uPlot.LICENSE"}
    assert "otel_celery_memory/py.typed" in names


def test_links_of_its_description_open_where_no_file_is_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        description = archive.read(name).decode().partition("\n\n")[2]
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert len(links) > 15
    assert [each for each in links if not each.startswith("https://")] == []
    project = "https://github.com/otel-celery-memory/otel-celery-memory"
    paths = [each.partition("/main/")[2] for each in links if each.startswith(project)]
    assert [each for each in paths if not (ROOT / each).exists()] == []


def test_what_is_installed_with_it_goes_together_and_check_says_so(
    programs: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    pip = run(programs, environ, tmp_path, "python", "-m", "pip", "check")
    assert pip.returncode == 0, pip.stdout
    checked = run(programs, environ, tmp_path, "otel-celery-memory", "check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.endswith("\nTelemetry would arrive: yes\n")
    assert " needs " not in checked.stdout


def test_a_worker_is_measured_and_answers(
    programs: Path, environ: dict[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    command = [str(programs / "celery"), "--app=shop", "worker", "--concurrency=1", "-lINFO"]

    def log(server: Server) -> str:
        return server.log.read_text(errors="replace")

    with running("worker", command, tmp_path, environ) as server:
        server.wait_ready(lambda: " ready." in log(server))
        sent = run(programs, environ, tmp_path, "python", "-c", SEND)
        assert sent.returncode == 0, sent.stderr

        def counted() -> bool:
            points = receiver.received.latest("celery.task.memory.measured")
            return sum(point.value for point in points) == 3

        wait_until("three tasks are counted", counted, 60)
        shown = wait_until(
            "it answers",
            lambda: (
                done.stdout
                if (done := run(programs, environ, tmp_path, *VIEW)).returncode == 0
                else None
            ),
            60,
        )
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
    assert shown is not None
    assert "\ntracing budget: " in shown
    assert "otel_celery_memory: 3 tasks measured, 0 records dropped" in log(server)


def test_without_its_extra_the_view_says_what_to_install(
    programs: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    done = run(programs, environ, tmp_path, "otel-celery-memory", "view")
    assert done.returncode == 2
    assert done.stderr == (
        "otel-celery-memory: starlette is not installed: pip install 'otel-celery-memory[view]'\n"
    )


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_with_its_extra_the_view_serves_its_page_and_shows_the_worker(
    programs_with_view: Path, environ: dict[str, str], tmp_path: Path, protocol: str
) -> None:
    page, otlp, over_grpc = free_ports(3)
    (tmp_path / "shop.py").write_text(SHOP)
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    environ |= {
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{LOOPBACK}:"
        f"{over_grpc if protocol == 'grpc' else otlp}",
    }
    words = ["view", "--port", str(page), "--otlp-port", str(otlp), "--grpc-port", str(over_grpc)]
    view = [str(programs_with_view / "otel-celery-memory"), *words]
    worker = [str(programs_with_view / "celery"), "--app=shop", "worker", "--concurrency=1"]
    url = f"http://{LOOPBACK}:{page}/"
    with running("view", view, tmp_path, environ) as server:
        server.wait_ready(lambda: answers(url))
        for part in re.findall(r'(?:src|href)="/(assets/[^"]+)"', get(url)):
            assert len(get(url + part)) > 100
        checked = run(programs_with_view, environ, tmp_path, "otel-celery-memory", "check")
        assert checked.returncode == 0, checked.stdout
        with running("worker", worker, tmp_path, environ):
            sent = run(programs_with_view, environ, tmp_path, "python", "-c", SEND)
            assert sent.returncode == 0, sent.stderr

            def shown() -> bool:
                snapshot = json.loads(get(f"{url}snapshot.json"))
                return [task["runs"] for each in snapshot["workers"] for task in each["tasks"]] == [
                    3
                ]

            wait_until("the page has the three runs", shown, 60)


VIEW = ("celery", "--app=shop", "--no-color", "memory", "view", "--timeout=10")
