"""Options that all tests share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let CI insist on components that a laptop may lack."""
    parser.addoption(
        "--require-redis",
        action="store_true",
        help="fail where redis-server is missing, instead of using the file system broker",
    )
