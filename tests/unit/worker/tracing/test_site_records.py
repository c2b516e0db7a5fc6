"""What a window found, as records: the largest sites told, the rest added up."""

from __future__ import annotations

from typing import Any

import pytest

from otel_celery_memory.ipc.codec import FrameDecoder, encode
from otel_celery_memory.ipc.records import Site, SitesWindow, WindowKind
from otel_celery_memory.probes.sites import LiveSites, SiteDelta, SiteFilter
from otel_celery_memory.worker.tracing.site_records import (
    SITES_PER_CAPTURE,
    SITES_PER_WINDOW,
    left_alive,
    run_records,
    window_records,
)
from otel_celery_memory.worker.tracing.traced_run import Traced

APP, TASKS = "/srv/app/feeds.py", "/srv/app/tasks.py"


def deltas(count: int) -> list[SiteDelta]:
    """Line 1 has one byte, line 2 two, and so on."""
    return [SiteDelta(APP, line, line, 1, ()) for line in range(1, count + 1)]


def told(*args: Any, **kwargs: Any) -> tuple[SitesWindow, list[Site]]:
    window, *sites = window_records(7, WindowKind.COMPLETE, "app.task", *args, **kwargs)
    assert isinstance(window, SitesWindow)
    return window, [site for site in sites if isinstance(site, Site)]


def test_a_window_and_its_site_are_told_whole() -> None:
    delta = SiteDelta(APP, 41, 900, 3, ((APP, 41), (TASKS, 20)))
    window, sites = told([delta], runs=4, aborted=True, capture=9)
    assert window == SitesWindow(7, window.time_ns, 0, 4, 1, 9, 1, 0, 0, "app.task")
    assert sites == [Site(7, 0, 9, 900, 3, 41, "app.task", APP, f"{TASKS}:20\n{APP}:41")]


def test_a_window_that_found_nothing_is_told_as_well() -> None:
    window, sites = told([])
    assert (window.sites, window.runs, window.aborted, window.capture, sites) == (0, 1, 0, 0, [])


@pytest.mark.parametrize(("capture", "bound"), [(0, SITES_PER_WINDOW), (3, SITES_PER_CAPTURE)])
def test_what_there_is_no_room_for_is_added_up(capture: int, bound: int) -> None:
    window, sites = told(deltas(bound + 3), capture=capture)
    assert (window.sites, window.other_bytes, window.other_blocks) == (bound, 6, 3)
    assert [site.line for site in sites] == [*range(bound + 3, 3, -1)]


def test_what_shrank_most_is_told_before_what_grew_a_little() -> None:
    found = [*deltas(SITES_PER_WINDOW), SiteDelta(APP, 999, -5_000, -5, ())]
    window, sites = told(found)
    assert (sites[0].line, sites[0].size_bytes, window.other_bytes) == (999, -5_000, 1)


def test_of_a_stack_that_does_not_fit_the_most_recent_calls_are_told() -> None:
    frames = tuple((f"/srv/{'x' * 100}/{depth}.py", depth) for depth in range(1, 26))
    _, (site,) = told([SiteDelta(*frames[0], 1, 1, frames)])
    (decoded,) = FrameDecoder().feed(encode(site))
    assert isinstance(decoded, Site)
    lines = decoded.stack.split("\n")
    assert lines[-1] == f"{frames[0][0]}:1"
    assert lines == [f"{path}:{line}" for path, line in reversed(frames[: len(lines)])]
    assert 10 < len(lines) < 25


def test_left_alive_is_all_that_may_name_a_site() -> None:
    sites: LiveSites = {((APP, 1),): (10, 1), (("<unknown>", 0),): (99, 9), ((TASKS, 2),): (20, 2)}
    assert left_alive(sites, SiteFilter(exclude=["*/tasks.py"])) == [SiteDelta(APP, 1, 10, 1, ())]


def test_what_a_run_that_raised_left_is_not_yet_left_behind() -> None:
    traced = Traced({(("/srv/app.py", 5),): (100, 2)}, 0.1, 0.0, whole=True, aborted=False)
    window, site = run_records(7, "app.task", traced, SiteFilter(), None, with_exception=True)
    assert isinstance(window, SitesWindow)
    assert isinstance(site, Site)
    assert (window.kind, site.kind) == (WindowKind.PARTIAL, WindowKind.PARTIAL)
