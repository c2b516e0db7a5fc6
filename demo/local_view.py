"""The view that the demo's worker sends to: `otel-celery-memory view`, as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import ProxyHandler, build_opener

from demo.environment import ROOT

_ADDRESSES = re.compile(r"The page: +(?P<page>http\S+)/\nWorkers send to (?P<otlp>http[^\s,]+\d)")
_PATIENCE_S = 5.0
# A proxy of the environment has no way to this machine's loopback.
_opener = build_opener(ProxyHandler({}))


class ViewError(Exception):
    """The view failed; the message has what it said."""


class LocalView:
    """Use as a context manager: the view ends with it."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "view.log"
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "otel_celery_memory.cli", "view"),
                    *("--port", "0", "--otlp-port", "0"),
                ],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # Ctrl-C goes to the whole process group, and the demo ends the view last.
                start_new_session=True,
            )
        self.page = self.endpoint = ""

    def __enter__(self) -> LocalView:
        assert self._process.stdout is not None
        said = ""
        while not (found := _ADDRESSES.search(said)):
            line = self._process.stdout.readline()
            if not line:
                self._process.wait()
                raise ViewError(f"the view did not start:\n{said}{self._log.read_text()}")
            said += line
        self.page, self.endpoint = f"{found['page']}/", found["otlp"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        self._process.kill()
        self._process.wait()

    def snapshot(self) -> dict[str, Any]:
        """What it knows now, as the page gets it."""
        try:
            with _opener.open(f"{self.page}snapshot.json", timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
        except (OSError, ValueError) as error:
            raise ViewError(f"the view does not answer: {error}\n{self._log.read_text()}") from None
        return found
