"""Options that all tests share, and how far hypothesis goes."""

from __future__ import annotations

from collections.abc import Generator

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase

hypothesis.settings.register_profile(
    "committed",
    # The same examples on every run: what fails here fails everywhere.
    derandomize=True,
    database=None,
    max_examples=100,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    # No time is a pass or fail.
    deadline=None,
    suppress_health_check=(HealthCheck.too_slow,),
)
hypothesis.settings.register_profile(
    "long",
    hypothesis.settings.get_profile("committed"),
    derandomize=False,
    max_examples=5_000,
    print_blob=True,
)
hypothesis.settings.load_profile("committed")


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


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make a file that is skipped as a whole fail where that was asked for.

    Here, as pytest-xdist's processes tell of what could not be collected, and not of what was
    skipped then.
    """
    report = yield
    if report.skipped and collector.config.getoption("--strict-skips"):
        report.outcome = "failed"
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make a run that skipped a test fail where that was asked for.

    Under pytest-xdist by the one process that has a reporter: it hears of all of them.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--strict-skips") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
