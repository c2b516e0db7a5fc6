"""Processes watched from outside: their end is noticed, their size is read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from selectors import DefaultSelector

import pytest

from otel_celery_memory.reporter.process_watcher import (
    ProcessWatcher,
)

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input ends."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def selector() -> Iterator[DefaultSelector]:
    made = DefaultSelector()
    yield made
    made.close()


@pytest.fixture
def watch(selector: DefaultSelector) -> Iterator[ProcessWatcher]:
    made = ProcessWatcher(selector)
    yield made
    for pid in list(made._pidfds):
        made.drop(pid)


@pytest.fixture
def no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")


def test_a_process_s_end_wakes_the_selector(
    watch: ProcessWatcher, selector: DefaultSelector
) -> None:
    with child() as process:
        assert watch.add(process.pid) is True
        assert selector.select(0) == []
        process.kill()
        ((key, _),) = selector.select(60)
        assert (key.data, watch.gone_without_pidfd()) == (process.pid, [])


def test_what_is_not_there_any_more_is_not_watched(watch: ProcessWatcher) -> None:
    with child() as process:
        pass
    assert watch.add(process.pid) is False
    assert watch.sizes() == {}


def test_watching_twice_is_watching_once(watch: ProcessWatcher, selector: DefaultSelector) -> None:
    assert [watch.add(os.getpid()), watch.add(os.getpid())] == [True, True]
    assert len(selector.get_map()) == 1


def test_a_process_that_is_dropped_leaves_no_descriptor(
    watch: ProcessWatcher, selector: DefaultSelector
) -> None:
    watch.add(os.getpid())
    watch.drop(os.getpid())
    watch.drop(os.getpid())
    assert (len(selector.get_map()), watch.sizes()) == (0, {})


@pytest.mark.usefixtures("no_pidfd")
def test_without_pidfds_the_end_of_processes_is_polled(watch: ProcessWatcher) -> None:
    with child() as process:
        assert watch.add(process.pid) is True
        assert watch.gone_without_pidfd() == []
    assert watch.gone_without_pidfd() == [process.pid]
    assert watch.add(process.pid) is True
    watch.drop(process.pid)
    assert watch.add(process.pid) is False


@pytest.mark.usefixtures("no_pidfd")
def test_a_process_of_another_user_counts_as_running(
    watch: ProcessWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert (watch.add(1), watch.gone_without_pidfd()) == (True, [])


def test_the_size_of_each_watched_process_is_read(watch: ProcessWatcher) -> None:
    with child() as process:
        watch.add(process.pid)
        watch.add(os.getpid())
        sizes = watch.sizes()
    assert sizes.keys() == {process.pid, os.getpid()}
    assert all(size.rss_bytes > 1 << 20 for size in sizes.values())
