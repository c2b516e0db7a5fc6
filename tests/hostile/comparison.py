"""Runs hostile tasks in a worker and notes all that could differ."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tests.hostile.scenarios import Hostile
from tests.processes import POLL_S, wait_until
from tests.worker.harness import Broker, Worker, running_worker

_SETTLES_WITHIN_S = 5.0
RUNS_AFTERWARDS = 1
"""Of a task that does nothing, in the process that a hostile task has left."""
_RESULT_WITHIN_S = 30.0
_BY_CHANCE = re.compile(r"[0-9a-f-]{36}|0x[0-9a-f]+|pid.?[0-9]+|Job: [0-9]+")
"""Ids, addresses, pids and the pool's numbers of jobs in the text of an exception."""
_COUNTED = ("prefork", "solo")
"""Elsewhere threads and greenlets have connections of their own, which come and go by chance."""
_MARK = "HOSTILE_WORKER"


class HangsError(Exception):
    """A task has no end: its worker can do nothing more."""


@dataclass(frozen=True)
class Outcome:
    """What one run of a hostile task came to, as the task, its caller and the machine see it."""

    state: str
    result: object
    """What it returned; or the type and text of what it raised."""
    files: Mapping[str, str]
    """What is in its directory: sizes and contents as a hash."""
    child: str
    """What became of the process that ran it."""
    left: Mapping[str, int]
    """What there is more of than before: descriptors, threads and processes."""

    def differences(self, other: Outcome) -> list[str]:
        """In words, where another one is not the same."""
        pairs = [
            (each.name, getattr(self, each.name), getattr(other, each.name))
            for each in fields(self)
        ]
        return [
            f"{name}: {_short(a)} without us, {_short(b)} with us" for name, a, b in pairs if a != b
        ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:200]} … {text[-200:]}"


@dataclass(frozen=True)
class HostileWorker:
    """A worker that runs hostile tasks, one at a time."""

    worker: Worker
    pool: str
    mark: str
    directory: Path

    def warm_up(self) -> None:
        """Run something harmless, so that connections are there which the first task makes."""
        self._run("hostile.nothing")

    def outcomes(self, hostile: Hostile) -> list[Outcome]:
        """Of all its runs; `HangsError` where one of them has no end."""
        if hostile.ends_worker:
            return [self._last(hostile)]
        if hostile.spoils:
            return [
                outcome
                for number in range(hostile.runs)
                for outcome in self._runs(hostile, range(number, number + 1))
            ]
        return self._runs(hostile, range(hostile.runs))

    def end(self) -> Outcome:
        """Of the worker, once all that it and its tasks have started is gone."""
        if self.worker.server.process.poll() is None:
            self.worker.stop()
        wait_until("all its processes have ended", lambda: not _marked(self.mark), 60)
        code = self.worker.server.process.returncode
        return Outcome(f"ended with {code}", None, _files_in(self.directory / "tmp"), "", {})

    def _runs(self, hostile: Hostile, numbers: Sequence[int]) -> list[Outcome]:
        before, process = self._looks(), self._process()
        runs = [self._send(hostile, number) for number in numbers]
        ends = [self._end_of(result) for _, result in runs]
        ended = self._process() != process
        if not ended:
            # What has been kept is used again by whoever comes next.
            for _ in range(RUNS_AFTERWARDS):
                self._run("hostile.nothing")
        files = [_files_in(directory) for directory, _ in runs]
        if hostile.undo is not None:
            self._run("hostile.undo", hostile.name)
        if hostile.spoils and not ended:
            wait_until("a new child", lambda: process not in _children(self.worker.pid), 60)
        child = self._ended_by(process) if ended or hostile.spoils else "lives"
        left = {} if child != "lives" else self._left(before)
        return [Outcome(*end, found, child, left) for end, found in zip(ends, files, strict=True)]

    def _last(self, hostile: Hostile) -> Outcome:
        directory, sent = self._send(hostile, 0)
        process = self.worker.server.process
        wait_until("the worker has ended", lambda: process.poll() is not None, 60)
        return Outcome(sent.state, None, _files_in(directory), "ended with its worker", {})

    def _send(self, hostile: Hostile, number: int) -> tuple[Path, Any]:
        here = self.directory / f"{hostile.name}-{number}"
        here.mkdir(exist_ok=True)
        return here, self._message(hostile.task_name, str(here), **hostile.message)

    def _message(self, task: str, *args: str, **options: Any) -> Any:
        return self.worker.client.send_task(task, args, queue=self.worker.queue, **options)

    def _run(self, task: str, *args: str) -> None:
        """Run a task that succeeds."""
        sent = self._message(task, *args)
        state, result = self._end_of(sent)
        assert state == "SUCCESS", f"{task}{args}: {state} {result}"

    def _end_of(self, result: Any) -> tuple[str, object]:
        until_s = time.monotonic() + _RESULT_WITHIN_S
        while not result.ready():
            if self._has_no_result(result.id):
                return "no result", None
            if time.monotonic() > until_s:
                raise HangsError(f"{self.directory.name} hangs in {result.id}")
            time.sleep(POLL_S / 2)
        state, value = result.state, result.result
        if isinstance(value, BaseException):
            value = f"{type(value).__name__}: {_BY_CHANCE.sub('#', str(value))}"
        return state, value

    def _has_no_result(self, task_id: str) -> bool:
        log = self.worker.log()
        return any(f"[{task_id}] {what}" in log for what in ("ignored", "rejected"))

    def _process(self) -> int:
        """The process that runs tasks."""
        if self.pool != "prefork":
            return self.worker.pid
        # The pool's only child: the reporter is nobody's.
        return wait_until("a child", lambda: max(_children(self.worker.pid), default=0), 60)

    def _ended_by(self, pid: int) -> str:
        found = re.findall(rf"pid:{pid} exited with ['\"](.*?)['\"]", self.worker.log())
        return f"ended: {found[0]}" if found else "ended"

    def _looks(self) -> dict[str, int]:
        directory = Path("/proc", str(self._process()))
        counts: dict[str, int] = {}
        if self.pool not in _COUNTED:
            return counts
        for name, entries in (("descriptors", "fd"), ("threads", "task")):
            with suppress(OSError):
                counts[name] = len(list((directory / entries).iterdir()))
        return {**counts, "processes": len(_marked(self.mark))}

    def _left(self, before: Mapping[str, int]) -> dict[str, int]:
        """What there is more of, once that does not change any more."""
        until_s = time.monotonic() + _SETTLES_WITHIN_S
        while True:
            now = self._looks()
            more = {
                name: n - before.get(name, n) for name, n in now.items() if n > before.get(name, n)
            }
            if not more or time.monotonic() > until_s:
                return more
            time.sleep(POLL_S)


@contextmanager
def hostile_worker(
    broker: Broker,
    directory: Path,
    endpoint: str,
    pool: str,
    name: str,
    settings: Mapping[str, str] | None,
    arguments: Sequence[str] = (),
    *,
    keeps_functions: bool = False,
) -> Iterator[HostileWorker]:
    """A worker with us under these settings, or without us where there are none."""
    here = directory / name
    (here / "tmp").mkdir(parents=True)
    mark = f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    ours = {} if settings is None else {"HOSTILE_MEASURED": "1", **settings}
    if keeps_functions:
        ours["HOSTILE_KEEPS_FUNCTIONS"] = "1"
    with running_worker(
        broker,
        here,
        endpoint,
        app="tests.hostile.app",
        arguments=(f"--pool={pool}", "--concurrency=1", *arguments),
        environ={_MARK: mark, "TMPDIR": str(here / "tmp"), **ours},
        name=name,
    ) as worker:
        yield HostileWorker(worker, pool, mark, here)


WITHOUT, DEFAULT = "without", "default"
SETTINGS: Mapping[str, Mapping[str, str] | None] = {
    WITHOUT: None,
    # Not where the other one would show the same, and time is short.
    DEFAULT: {},
    # As much as the budget allows is traced, ten frames deep, and reported all the time.
    "extreme": {
        "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
        "OTEL_CELERY_MEMORY_FRAMES": "10",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1",
    },
}
"""The workers that are compared: with these settings, or without us."""


def differences(
    scenarios: Sequence[Hostile],
    pool: str,
    broker: Broker,
    directory: Path,
    endpoint: str,
    tell: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Where a worker with us differs from one without, over all of these, in words."""
    # A child that can do nothing more ends by itself, as one does that has run enough tasks.
    spoilt = any(each.spoils for each in scenarios)
    keeps_functions = any(each.keeps_functions for each in scenarios)
    arguments = [f"--max-tasks-per-child={1 + RUNS_AFTERWARDS}"] if spoilt else []
    with ExitStack() as running, ThreadPoolExecutor(len(SETTINGS)) as threads:
        workers = {
            name: running.enter_context(
                hostile_worker(
                    *(broker, directory, endpoint, pool, name, settings, arguments),
                    keeps_functions=keeps_functions,
                )
            )
            for name, settings in SETTINGS.items()
            if spoilt or name != DEFAULT
        }
        runs = [threads.submit(_all_of, each, scenarios, tell) for each in workers.values()]
        outcomes = dict(zip(workers, [run.result() for run in runs], strict=True))
    without = outcomes.pop(WITHOUT)
    return [
        f"{name}, {scenario}: {difference}"
        for name, outcome in outcomes.items()
        for scenario in without
        for difference in _compared(without[scenario], outcome.get(scenario, ()))
    ]


def _all_of(
    worker: HostileWorker, scenarios: Sequence[Hostile], tell: Callable[[str], None]
) -> dict[str, Sequence[Outcome]]:
    """The outcomes of each, and of the worker's own end."""
    found: dict[str, Sequence[Outcome]] = {}
    if not any(each.spoils for each in scenarios):
        worker.warm_up()
    for each in scenarios:
        tell(f"{worker.directory.name}: {each.name}")
        try:
            found[each.name] = worker.outcomes(each)
        except HangsError as error:
            found[each.name] = [Outcome(str(error), None, {}, "hangs", {})]
            worker.worker.server.process.kill()
            return found
    tell(f"{worker.directory.name}: ends")
    found["the end of the worker"] = [worker.end()]
    return found


def _compared(without: Sequence[Outcome], others: Sequence[Outcome]) -> list[str]:
    if len(without) != len(others):
        return [f"{len(without)} runs without us, {len(others)} with us: {others}"]
    found: dict[str, None] = {}
    for one, other in zip(without, others, strict=True):
        found.update(dict.fromkeys(one.differences(other)))
    return list(found)


def _marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"{_MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _children(pid: int) -> list[int]:
    """By the kernel, without a program: this is asked several times for each hostile task."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _files_in(directory: Path) -> dict[str, str]:
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            found[str(path.relative_to(directory))] = (
                f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()[:12]}"
            )
    return found
