"""Memory with a name: frames of a child that inherited nothing, and what it refuses to use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from otel_celery_memory.ipc.control_page import PAGE_BYTES
from otel_celery_memory.ipc.records import Goodbye, ProcessUp, Record
from otel_celery_memory.ipc.shared_memory import VARIABLE, SpawnDirectory
from otel_celery_memory.settings import Settings
from otel_celery_memory.worker.lifecycle.embedded import NamedRecordWriter, join_worker, open_writer
from otel_celery_memory.worker.measuring.spans import TaskSpans
from otel_celery_memory.worker.record_writer import RecordWriter
from tests.unit.rings import Rings


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def pipe() -> Iterator[NamedRecordWriter]:
    """The main process's writer."""
    made = NamedRecordWriter(2, 2_048)
    yield made
    made.close()


def spawn_directory() -> SpawnDirectory:
    found = SpawnDirectory.from_environ(os.environ)
    assert found is not None
    return found


def as_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process is its own parent."""
    pid = os.getpid()
    monkeypatch.setattr(os, "getppid", lambda: pid)


def received(pipe: RecordWriter) -> list[Record]:
    rings = Rings(pipe)
    found = rings.read()
    rings.close()
    return found


def join() -> object:
    return join_worker(Settings(), TaskSpans(None))


def test_what_a_child_sends_arrives_and_its_drops_are_counted(
    pipe: NamedRecordWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_parent(monkeypatch)
    child = join_worker(Settings(), TaskSpans(None))
    assert child is not None
    assert child._recorder.max_memory_kib == 2_048
    child.end()
    first, *_, last = received(pipe)
    assert isinstance(first, ProcessUp)
    assert (first.pid, last.pid) == (os.getpid(), os.getpid())
    assert pipe.page.drop_counters.counts().total == 0


def test_the_main_process_writes_there_too(pipe: NamedRecordWriter) -> None:
    pipe.send(Goodbye(1, 2))
    assert received(pipe) == [Goodbye(1, 2)]
    assert os.fstat(pipe.page.fd).st_size == PAGE_BYTES


def test_close_removes_the_directory_and_the_variable(temporary: Path) -> None:
    made = NamedRecordWriter(2, 0)
    assert len(list(temporary.iterdir())) == 1
    made.close()
    made.close()
    assert (list(temporary.iterdir()), VARIABLE in os.environ) == ([], False)


def test_another_worker_s_child_does_not_join(pipe: NamedRecordWriter) -> None:
    # The variable is inherited by all that a task starts; its parent is not the worker.
    assert join() is None


def test_a_directory_that_others_can_access_is_not_used(
    pipe: NamedRecordWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_parent(monkeypatch)
    directory = spawn_directory().directory
    directory.chmod(0o777)
    assert join() is None
    directory.chmod(0o700)


@pytest.mark.parametrize("name", ["rings", "page"])
@pytest.mark.parametrize("instead", ["nothing", "link", "file"])
def test_memory_of_another_type_is_not_used_and_not_written_to(
    pipe: NamedRecordWriter,
    monkeypatch: pytest.MonkeyPatch,
    temporary: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    instead: str,
) -> None:
    as_parent(monkeypatch)
    victim = temporary / "victim"
    victim.touch()
    path = spawn_directory().directory / name
    path.unlink()
    if instead == "link":
        path.symlink_to(victim)
    elif instead == "file":
        path.touch()
    assert join() is None
    assert victim.read_bytes() == b""
    assert caplog.text.count("the reporter cannot be reached") == 1


@dataclass(frozen=True)
class FakeWorker:
    """What is asked of a worker."""

    pool_cls: object
    pool_start_method: str = "fork"


def test_only_a_prefork_pool_that_spawns_needs_a_name() -> None:
    from celery.concurrency.prefork import TaskPool
    from celery.concurrency.solo import TaskPool as Solo

    spawning = FakeWorker(TaskPool, "spawn")
    for worker, named in (
        (spawning, True),
        (replace(spawning, pool_start_method="fork"), False),
        (replace(spawning, pool_cls=Solo), False),
    ):
        pipe = open_writer(worker, 0)
        pipe.close()
        assert isinstance(pipe, NamedRecordWriter) is named


def test_if_the_page_cannot_be_created_nothing_is_left(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError("no room")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(OSError, match="no memory"):
        NamedRecordWriter(2, 0)
    assert (list(temporary.iterdir()), VARIABLE in os.environ) == ([], False)
