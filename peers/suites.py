"""Which suites there are, the ways in which each is run, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WITHOUT = "without"
ENDED_BADLY = "failed at its end"
_EXTREME = {
    "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "0.5",
    "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
    "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
    "OTEL_CELERY_MEMORY_FRAMES": "10",
}
_IN_PROCESS = {"PEERS_PROVIDER": "1"}
WAYS: Mapping[str, Mapping[str, str]] = {
    WITHOUT: {},
    "default, before": {"PEERS_WHEN": "before"},
    "default, after": {"PEERS_WHEN": "after"},
    "extreme": {"PEERS_WHEN": "before", **_EXTREME},
    "always": {"PEERS_WHEN": "before", **_EXTREME, "OTEL_CELERY_MEMORY_TRACING": "always"},
    "extreme, in process": {"PEERS_WHEN": "before", **_EXTREME, **_IN_PROCESS},
    "always, in process": {
        "PEERS_WHEN": "before",
        **_EXTREME,
        "OTEL_CELERY_MEMORY_TRACING": "always",
        **_IN_PROCESS,
    },
}
"""By name, the environment of a run. In process, the tasks of the tests themselves are measured."""


@dataclass(frozen=True)
class Suite:
    """Tests of a source distribution."""

    name: str
    distribution: str
    tests: str
    arguments: tuple[str, ...] = ()
    starts_workers: bool = False
    """Whether it starts whole workers. Those have a reporter, and measure what they run."""

    def ways(self) -> list[str]:
        """The runs that differ for it."""
        left_out = "in process" if self.starts_workers else "neither"
        return [name for name in WAYS if left_out not in name]


SUITES = (
    *(
        Suite(f"celery t/unit/{part}", "celery", f"t/unit/{part}", ("--timeout=60",))
        for part in ("worker", "concurrency", "tasks", "app")
    ),
    Suite(
        "celery t/integration",
        "celery",
        "t/integration",
        # With a Redis alone, whatever is about an AMQP broker or Azure has nobody to talk to.
        (
            *("--timeout=60", "-m", "not amqp", "-p", "no:order", "-p", "no:rerunfailures"),
            "--ignore=t/integration/test_backend.py",
            # Of the scheduler alone, and it waits for minutes until a timezone's clock changes.
            "--ignore=t/integration/test_beat.py",
            # It fails without us, and then those after it have no worker.
            "--ignore=t/integration/test_backend_leak_in_fixture_teardown.py",
        ),
        starts_workers=True,
    ),
    Suite(
        "opentelemetry-instrumentation-celery",
        "opentelemetry-instrumentation-celery",
        "tests",
        ("--timeout=120",),
    ),
)


def sources(distribution: str, directory: Path) -> Path:
    """The unpacked source distribution of the installed version."""
    name = f"{distribution}-{version(distribution)}"
    found = directory / name.replace("-", "_", distribution.count("-"))
    if not found.exists():
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary=:all:",
                f"--dest={directory}",
                f"{distribution}=={version(distribution)}",
            ],
            check=True,
        )
        with tarfile.open(f"{found}.tar.gz") as archive:
            archive.extractall(directory, filter="data")
    return found


def run(suite: Suite, way: str, source: Path, output: Path, redis_url: str) -> dict[str, str]:
    """What came of each test; its log is left in ``output``."""
    name = f"{suite.name}, {way}".replace("/", "-").replace(" ", "-")
    outcomes = output / f"{name}.jsonl"
    outcomes.unlink(missing_ok=True)
    outcomes.touch()
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environ = {
        **kept,
        # Ours comes last: the package that the suite tests is beside it.
        "PYTHONPATH": f"{source}{os.pathsep}{ROOT}",
        "PEERS_OUTCOMES": str(outcomes),
        "TEST_BROKER": redis_url,
        "TEST_BACKEND": redis_url.removesuffix("0") + "1",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": redis_url.rpartition(":")[2].partition("/")[0],
        # Nobody listens there: exports fail, which is nothing that a test should see.
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        **WAYS[way],
    }
    command = [sys.executable, "-m", "pytest", suite.tests, "-q", "-p", "peers.plugin"]
    # Its own settings: pytest would find ours, in the directory above.
    command += ["-c", str(source / "pyproject.toml"), "-p", "no:cacheprovider", *suite.arguments]
    with (output / f"{name}.log").open("wb") as log:
        subprocess.run(
            command, cwd=source, env=environ, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    return of_phases(json.loads(line) for line in outcomes.read_text().splitlines())


def of_phases(phases: Iterable[Sequence[str]]) -> dict[str, str]:
    """The outcome of each test: failed if a phase of it did, skipped if one was, else passed.

    One that passed, and after which something was wrong, has `ENDED_BADLY`. A test that is run
    again has the outcome of its last run.
    """
    found: dict[str, str] = {}
    for test, when, outcome in phases:
        if when == "teardown" and outcome == "failed" and found.get(test) == "passed":
            found[test] = ENDED_BADLY
        elif when == "setup" or outcome != "passed":
            found[test] = "passed" if outcome == "rerun" else outcome
    return found


def compared(without: Mapping[str, str], with_us: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The tests of which something else came: what without us, and what with us."""
    names = dict.fromkeys([*without, *with_us])
    pairs = {name: (without.get(name, "not run"), with_us.get(name, "not run")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
