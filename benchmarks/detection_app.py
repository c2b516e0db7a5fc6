"""The zoo's application with a contender in the place of this package: the tasks are the same."""

from __future__ import annotations

import os

# Without it the application is not instrumented.
_broker = os.environ.pop("TRUTH_BROKER")

from benchmarks.contenders import CONTENDERS  # noqa: E402
from tests.truth.app import app  # noqa: E402

app.conf.broker_url = _broker
CONTENDERS[os.environ["BENCH_CONTENDER"]].install()
