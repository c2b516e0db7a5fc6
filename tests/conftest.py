"""Options that all tests share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let CI insist on components that a laptop may lack."""
    parser.addoption(
        "--require-brokers",
        action="store_true",
        help="fail where redis-server or rabbitmq-server is missing, instead of doing without",
    )
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="a test that is skipped fails the run: in CI a missing component is an error",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make a run that skipped something fail where that was asked for."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--strict-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
