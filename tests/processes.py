"""Starts the servers that tests need, waits for them within bounds, and ends them by their pid."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

T = TypeVar("T")
LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0
QUERY_TIMEOUT_S = 300.0
"""Of a store of hundreds of thousands of series, on a machine that does other things as well."""
POLL_S = 0.05
_PATIENCE_S = 300.0
"""Nobody gives up before: with many tests on a busy machine a second may last twenty."""
_CONNECTIONS = Path("/proc/sys/net/ipv4/ip_local_port_range")

# A proxy of the environment has no way to this machine's loopback.
_opener = build_opener(ProxyHandler({}))


class ComponentError(Exception):
    """A component is missing or does not work. It fails a test, and never skips one."""


@dataclass(frozen=True)
class Server:
    """A process with the file that its output goes to."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def log_tail(self) -> str:
        """The end of its output, for an error message."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def get(self, url: str) -> str:
        """The body of one of its URLs; `ComponentError` that begins with its name where it is down.

        A refusal of what was asked (HTTP 4xx and 5xx) is told with its text.
        """
        try:
            return get(url, QUERY_TIMEOUT_S)
        except HTTPError as error:
            refusal = error.read().decode(errors="replace")
            raise ComponentError(f"{self.name} refuses {url}: {error}: {refusal}") from None
        except OSError as error:
            code = self.process.poll()
            state = "runs" if code is None else f"ended with {code}"
            raise ComponentError(
                f"{self.name} is down: it {state} and does not answer {url}: {error}\n"
                f"{self.log_tail()}"
            ) from None

    def wait_ready(self, probe: Callable[[], object]) -> None:
        """Return once ``probe`` is true; fail at once when the process has ended instead."""

        def alive_and_ready() -> object:
            code = self.process.poll()
            if code is not None:
                raise ComponentError(f"{self.name} ended with {code} at start:\n{self.log_tail()}")
            return probe()

        try:
            wait_until(f"{self.name} is ready", alive_and_ready, START_TIMEOUT_S)
        except TimeoutError as error:
            raise ComponentError(f"{error}:\n{self.log_tail()}") from None


def require(program: str, package: str) -> str:
    """The path of ``program``, which ``package`` provides."""
    path = shutil.which(program)
    if path is None:
        raise ComponentError(f"{program} is not on PATH; it comes with {package}")
    return path


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on; held together while choosing, so that they differ.

    Not of those that the kernel gives to connections: with many tests at once one of them would
    now and then have a port before the server that it was chosen for.
    """
    with ExitStack() as held:
        return [_bound(held.enter_context(socket.socket())) for _ in range(count)]


def _bound(sock: socket.socket) -> int:
    lowest = int(_CONNECTIONS.read_text().split()[0])
    # A generator of its own: one that is seeded would choose the same in each process.
    candidates = random.SystemRandom().choices(range(10_000, max(lowest, 10_001)), k=50)
    for port in (*candidates, 0):
        with suppress(OSError):
            sock.bind((LOOPBACK, port))
            break
    return int(sock.getsockname()[1])


def get(url: str, timeout_s: float = 5) -> str:
    """The body of ``url``; `OSError` where it does not answer with success in time."""
    with _opener.open(url, timeout=timeout_s) as response:
        body: bytes = response.read()
    return body.decode()


def answers(url: str) -> bool:
    """Whether ``url`` answers with success."""
    try:
        get(url)
    except OSError:
        return False
    return True


def wait_until(what: str, probe: Callable[[], T], timeout_s: float) -> T:
    """The first true value of ``probe``; `TimeoutError`, naming ``what``, after ``timeout_s``.

    And after five minutes at the earliest.
    """
    timeout_s = max(timeout_s, _PATIENCE_S)
    deadline = time.monotonic() + timeout_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}; last seen: {value!r}")
        time.sleep(POLL_S)


@contextmanager
def running(
    name: str, command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server in ``directory`` for as long as the context lasts."""
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Its own group: Ctrl-C is for pytest, which then ends the servers in order.
            start_new_session=True,
        )
    try:
        yield Server(name, process, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)
