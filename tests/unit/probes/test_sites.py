"""Live allocations grouped by the place in the code that made them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_celery_memory
from otel_celery_memory.probes import sites
from otel_celery_memory.probes.sites import (
    Frames,
    NoCollections,
    Owner,
    SiteDelta,
    SiteFilter,
    changed_sites,
    group_traces,
    live_sites,
    take_traces,
)

OURS = str(Path(otel_celery_memory.__file__).parent)
APP, LIB = "/srv/app/feeds.py", "/venv/site-packages/lib.py"
EVERYTHING = SiteFilter()


def one(path: str, line: int = 1) -> Frames:
    """A trace of one frame."""
    return ((path, line),)


@pytest.fixture(params=["raw", "snapshot"])
def frames_traced(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Tracing with three frames, read both ways that there are."""
    if request.param == "snapshot":
        monkeypatch.setattr(sites, "_tracemalloc", None)
    tracemalloc.start(3)
    yield
    tracemalloc.stop()


def make(size: int) -> bytes:
    return bytes(size)  # the place


@pytest.mark.usefixtures("frames_traced")
def test_live_traces_are_found_with_their_callers_most_recent_first() -> None:
    before = live_sites()
    kept = [make(100_000), make(100_000)]
    deltas = changed_sites(before, live_sites(), SiteFilter([__file__]))
    delta = deltas[0]
    line = make.__code__.co_firstlineno + 1
    assert (delta.path, delta.line, delta.blocks, len(kept)) == (__file__, line, 2, 2)
    assert 200_000 <= delta.size_bytes < 201_000
    assert [place[0] for place in delta.stack[:2]] == [__file__, __file__]
    assert delta.stack[0][1] == line
    assert delta.stack[1][1] == kept_line()


@pytest.mark.usefixtures("frames_traced")
def test_traces_that_were_taken_are_grouped_the_same_when_tracing_has_stopped() -> None:
    kept = [make(100_000), make(100_000)]
    traces = take_traces()
    looked = live_sites()
    tracemalloc.stop()
    grouped = group_traces(traces)
    here = {frames for frames in grouped if frames[0][0] == __file__}
    big = [frames for frames in here if grouped[frames][0] >= 200_000]
    assert [grouped[frames][1] for frames in big] == [len(kept)]
    assert [looked[frames] for frames in big] == [grouped[frames] for frames in big]


def test_bytes_and_blocks_are_added_up_for_frames_that_are_equal_and_not_only_the_same() -> None:
    def frames() -> Frames:
        return next(((APP, 1), (LIB, number)) for number in [2])

    traces = [(0, 5, frames(), 2), (0, 7, one(APP), 1), (3, 6, frames(), 2)]
    assert frames() is not frames()
    assert group_traces(traces) == {frames(): (11, 2), one(APP): (7, 1)}
    assert group_traces([]) == {}


@pytest.mark.parametrize("enabled", [True, False])
def test_looking_leaves_the_collector_as_it_was(enabled: bool) -> None:
    was_enabled = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        with NoCollections():
            inside = gc.isenabled()
        after = gc.isenabled()
        with pytest.raises(MemoryError), NoCollections():
            raise MemoryError
        assert (inside, after, gc.isenabled()) == (False, enabled, enabled)
    finally:
        gc.enable() if was_enabled else gc.disable()


def kept_line() -> int:
    """The line in the test above that calls `make`."""
    lines = Path(__file__).read_text().splitlines()
    return lines.index("    kept = [make(100_000), make(100_000)]") + 1


def test_growth_and_shrinkage_are_told_largest_growth_first_and_what_stayed_is_not() -> None:
    before = {one(APP, 1): (100, 1), one(APP, 2): (50, 5), one(APP, 3): (70, 7)}
    after = {one(APP, 1): (100, 1), one(APP, 2): (10, 1), one(APP, 4): (900, 9)}
    assert changed_sites(before, after, EVERYTHING) == [
        SiteDelta(APP, 4, 900, 9, ()),
        SiteDelta(APP, 2, -40, -4, ()),
        SiteDelta(APP, 3, -70, -7, ()),
    ]


def test_a_site_that_keeps_its_size_in_fewer_blocks_has_changed() -> None:
    assert changed_sites({one(APP): (8, 2)}, {one(APP): (8, 1)}, EVERYTHING) == [
        SiteDelta(APP, 1, 0, -1, ())
    ]


def test_traces_of_several_frames_keep_their_stacks_apart() -> None:
    first: Frames = ((APP, 1), (APP, 10))
    second: Frames = ((APP, 1), (APP, 20))
    assert changed_sites({}, {first: (5, 1), second: (7, 1)}, EVERYTHING) == [
        SiteDelta(APP, 1, 7, 1, second),
        SiteDelta(APP, 1, 5, 1, first),
    ]


def test_a_site_belongs_to_the_most_recent_frame_that_is_chosen() -> None:
    stack: Frames = ((LIB, 5), (LIB, 6), (APP, 7), (APP, 8))
    assert SiteFilter(exclude=["*/site-packages/*"]).owner(stack) == Owner(APP, 7)
    assert SiteFilter(include=["/srv/*"]).owner(stack) == Owner(APP, 7)
    assert EVERYTHING.owner(stack) == Owner(LIB, 5)


def test_a_site_without_a_chosen_frame_is_not_told() -> None:
    assert SiteFilter(include=["/srv/*"]).owner(one(LIB)) is None
    assert SiteFilter(exclude=["*"]).owner(one(APP)) is None
    assert changed_sites({}, {one(LIB): (5, 1)}, SiteFilter(include=["/srv/*"])) == []


def test_exclude_wins_over_include_and_case_matters() -> None:
    chosen = SiteFilter(include=["*.py"], exclude=["*/App/*"])
    assert chosen.owner(one(APP)) == Owner(APP, 1)
    assert chosen.owner(one("/srv/App/x.py")) is None


@pytest.mark.parametrize(
    "path",
    [
        f"{OURS}/worker/measuring/task_measurement.py",
        tracemalloc.__file__,
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>",
        "<unknown>",
    ],
)
def test_what_we_and_the_import_machinery_allocate_is_never_told(path: str) -> None:
    assert EVERYTHING.owner(((path, 1), (APP, 2))) is None


def test_what_we_allocate_through_a_library_names_no_site() -> None:
    stack: Frames = ((LIB, 1), (f"{OURS}/worker/measuring/task_recorder.py", 2), (APP, 3))
    assert SiteFilter(exclude=["*/site-packages/*"]).owner(stack) is None


def test_a_neighbour_whose_name_begins_like_ours_is_not_ours() -> None:
    assert EVERYTHING.owner(one(f"{OURS}_plugin/x.py")) == Owner(f"{OURS}_plugin/x.py", 1)


def test_what_is_remembered_of_paths_is_bounded_and_the_answer_the_same_beyond() -> None:
    chosen = SiteFilter(exclude=["*9.py"])
    answers = [chosen.owner(one(f"/generated/{number}.py")) for number in range(12_000)]
    assert sum(answer is None for answer in answers) == 1_200
    assert len(chosen._allowed) == 10_000
