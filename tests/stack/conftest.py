"""The stack's fixtures: real servers on free ports of the loopback, one of each a test session.

A part that is missing or does not start is an error, never a skip: a test that did not run has
shown nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.redis_server import running_redis

from .collector import Collector, running_collector
from .collector_build import collector_binary
from .prometheus import Prometheus, running_prometheus
from .report import Report

_REPORT = Report()


@pytest.fixture(scope="session")
def report() -> Report:
    """Where a test says what it measured."""
    return _REPORT


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let somebody keep the answers to the panels' queries."""
    parser.addoption(
        "--save-panels", type=Path, help="a file for what the panels' queries returned"
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show what was measured."""
    if path := config.getoption("--save-panels"):
        _REPORT.save(path)
    if _REPORT.lines:
        terminalreporter.section("measured")
        for line in _REPORT.lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """The Collector of this repository, running on this repository's configuration."""
    with running_collector(collector_binary(), tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.fixture(scope="session")
def prometheus(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the Collector."""
    directory = tmp_path_factory.mktemp("prometheus")
    with running_prometheus(directory, [collector]) as running:
        yield running


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty Redis."""
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url
