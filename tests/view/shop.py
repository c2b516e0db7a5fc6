"""The shop of the tutorial, `examples/find_a_leak`, as a test runs it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.processes import LOOPBACK, Server, running

ROOT = Path(__file__).resolve().parents[2]
NODE, TASK = "celery@shop", "shop.feeds.refresh"
CELERY = (sys.executable, "-m", "celery", "-A", "shop")
_IGNORED = shutil.ignore_patterns("__pycache__")


def copy_of_shop(directory: Path) -> Path:
    """The shop's code, which a test may change."""
    return Path(shutil.copytree(ROOT / "examples" / "find_a_leak", directory, ignore=_IGNORED))


def shop_environ(broker: str, endpoint: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of its programs; ``settings`` are ours, without their prefix."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": LOOPBACK,
        "BROKER_URL": broker,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "1",
        **{f"OTEL_CELERY_MEMORY_{name}": value for name, value in settings.items()},
    }


@contextmanager
def running_shop(code: Path, environ: Mapping[str, str], children: int) -> Iterator[Server]:
    """The worker."""
    command = [*CELERY, "worker", f"--concurrency={children}", f"--hostname={NODE}"]
    with running("worker", command, code, environ) as server:
        yield server
