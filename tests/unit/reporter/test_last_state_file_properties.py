"""The file of last known processes by property: what is written is found, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from otel_celery_memory.ipc.records import SLOTS_MAX
from otel_celery_memory.reporter.last_state import LastStateFile, SavedProcess, SavedWorker
from tests.unit.arbitrary import COUNT, JSON

# Each example writes the file that it reads.
on_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.one_of(st.none(), st.text(st.characters(), max_size=512))
SIZES = st.one_of(st.none(), COUNT)
PROCESSES = st.builds(
    SavedProcess,
    slot=st.one_of(st.none(), st.integers(-1, SLOTS_MAX - 1)),
    pid=COUNT,
    rss_bytes=SIZES,
    rss_peak_bytes=SIZES,
    task=NAMES,
    task_id=NAMES,
    task_started_ns=SIZES,
    task_rss_start_bytes=SIZES,
    task_rss_peak_bytes=SIZES,
    task_losses=SIZES,
)
WORKERS = st.builds(
    SavedWorker,
    time_ns=COUNT,
    main_pid=COUNT,
    main_started=COUNT,
    cgroup=st.text(st.characters(), max_size=512),
    oom_kills=SIZES,
    processes=st.lists(PROCESSES, max_size=3).map(tuple),
)


@pytest.fixture
def file(tmp_path: Path) -> LastStateFile:
    return LastStateFile(tmp_path / "state", "celery@box")


@on_one_file
@given(known=WORKERS)
def test_any_worker_is_found_as_it_was_written(file: LastStateFile, known: SavedWorker) -> None:
    file.write(known)
    assert file.read() == known


def found(file: LastStateFile, content: bytes) -> SavedWorker | None:
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_bytes(content)
    return file.read()


@on_one_file
@given(content=st.one_of(st.binary(max_size=200), JSON.map(lambda each: json.dumps(each).encode())))
@example(content=b"[" * 100_000)
def test_any_bytes_and_any_json_are_no_worker(file: LastStateFile, content: bytes) -> None:
    assert found(file, content) is None


FIELDS = [*SavedWorker.__dataclass_fields__, "format"]


@on_one_file
@given(
    known=WORKERS,
    values=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=2),
    process=st.dictionaries(
        st.sampled_from([*SavedProcess.__dataclass_fields__]), JSON, max_size=2
    ),
)
def test_any_replaced_value_is_used_only_if_it_is_valid(
    file: LastStateFile, known: SavedWorker, values: dict[str, Any], process: dict[str, Any]
) -> None:
    file.write(known)
    data = {**json.loads(file.path.read_bytes()), **values}
    if isinstance(data["processes"], list):
        data["processes"] = [
            {**each, **process} if isinstance(each, dict) else each for each in data["processes"]
        ]
    worker = found(file, json.dumps(data).encode())
    if worker is not None:
        file.write(worker)
        assert file.read() == worker
        numbers = [
            value
            for each in worker.processes
            for value in vars(each).values()
            if isinstance(value, int)
        ]
        assert all(-1 <= number < 2**63 for number in numbers)
