"""What can be measured here, and why something cannot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_celery_memory.probes import abilities
from otel_celery_memory.probes.abilities import has_changed_user, is_musl, read_abilities
from otel_celery_memory.probes.allocators import HeapReading


def missing(
    proc: Path = Path("/proc"), environ: Mapping[str, str] | None = None
) -> dict[str, tuple[str, str]]:
    return {
        each.name: (each.why_not, each.remedy)
        for each in read_abilities(environ or {}, proc)
        if each.why_not and each.name != "allocations beside threads"
    }


def test_on_linux_all_can_be_measured_of_a_process_that_has_kept_its_user() -> None:
    assert missing() == {}
    assert not has_changed_user()
    assert not is_musl()


def test_without_proc_sizes_come_from_psutil_and_the_rest_does_not_come(tmp_path: Path) -> None:
    found = missing(tmp_path)
    assert set(found) == {"peak RSS of a task", "USS and PSS", "open files"}
    assert {why for why, _ in found.values()} == {"there is no /proc"}
    assert next(iter(read_abilities({}, tmp_path))).source == "psutil"


def test_of_a_process_that_has_changed_its_user_what_linux_hides_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As /proc is to such a process: sizes can be read, the rest cannot.
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text("100 50 20 1 0 30 0\n")
    monkeypatch.setattr(abilities, "has_changed_user", lambda: True)
    found = missing(tmp_path)
    assert set(found) == {"peak RSS of a task", "USS and PSS", "open files"}
    ((why, remedy),) = set(found.values())
    assert why == "Linux hides it from a process that has changed its user, as by --uid"
    assert remedy.startswith("Start the worker as that user from the beginning")


@pytest.mark.parametrize(
    ("musl", "environ", "said"),
    [
        (True, {}, ("musl's malloc counts nothing", "Run an image with glibc (slim, not alpine)")),
        (False, {}, ("the C library has no mallinfo2", "It comes with glibc 2.33")),
        (
            False,
            {"LD_PRELOAD": "libmimalloc.so"},
            (
                "the allocator of LD_PRELOAD=libmimalloc.so has no counter that follows it",
                "Use glibc's malloc, jemalloc or tcmalloc",
            ),
        ),
    ],
)
def test_an_allocator_whose_counters_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, musl: bool, environ: dict[str, str], said: tuple[str, str]
) -> None:
    monkeypatch.setattr(abilities, "is_musl", lambda: musl)
    monkeypatch.setattr(abilities, "malloc_in_use", lambda: None)
    monkeypatch.setattr(abilities, "read_heap", lambda: HeapReading(1, None, None))
    assert missing(environ=environ)["heap that a task keeps"] == said


def test_with_jemalloc_preloaded_the_heap_that_a_task_keeps_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(abilities, "malloc_in_use", lambda: lambda: 0)
    assert missing(environ={"LD_PRELOAD": "libjemalloc.so.2"}) == {}


@pytest.mark.parametrize("fixed", [True, False])
def test_beside_threads_allocations_are_traced_where_python_is_fixed(
    monkeypatch: pytest.MonkeyPatch, fixed: bool
) -> None:
    monkeypatch.setattr(abilities, "stop_is_fixed", lambda: fixed)
    (found,) = (each for each in read_abilities({}) if each.name == "allocations beside threads")
    assert bool(found.why_not) is not fixed
