"""The table of a run, for people."""

from __future__ import annotations

from collections.abc import Iterator

from soak.plan import Fault
from soak.run import Result

_SHOWN = 5


def lines(result: Result) -> Iterator[str]:
    """The table, line by line."""
    yield f"{result.tasks:,} tasks over prefork in {result.duration_s:.0f} s"
    yield ""
    yield f"{'fault':38}{'injected':>9}{'survived':>9}{'reported':>13}"
    for name, count in sorted(result.injected.counts.items()):
        survived, rightly = str(count), "-"
        if name == Fault.KILL_CHILD.value:
            rightly = str(result.deaths.reported_rightly)
        elif name == Fault.KILL_REPORTER.value:
            survived = rightly = str(min(result.restarts, count))
        yield f"{name:38}{count:9}{survived:>9}{rightly:>13}"
    yield ""
    yield f"{'tasks':38}{'started':>9}{'measured':>9}{'lost':>6}{'dropped':>9}{'missing':>9}"
    for each in result.balances:
        row = f"{each.name:38}{each.started:9}{each.measured:9}{each.lost:6}{each.dropped_ends:9}"
        bound = f"  (or {each.twice_max} twice)" if each.twice_max else ""
        yield f"{row}{each.unaccounted:9}{bound}{'' if each.holds else '  WRONG'}"
    yield "  lost: in flight in a killed child. dropped: the ring was full at its end. missing:"
    yield "  started, but none of these or, below zero, exported twice: by an export whose reporter"
    yield "  was killed before the response."
    yield ""
    deaths = result.deaths
    yield f"deaths reported {deaths.reported} of {deaths.killed},"
    yield f"  {deaths.with_task} with a task in flight, {len(deaths.wrong)} with a wrong one,"
    yield f"  {deaths.reported_twice} twice,"
    yield f"  {deaths.reported_again} again, after a reporter was killed while it reported them"
    others = sum(each.dropped_others for each in result.balances)
    yield f"frames dropped other than ends of tasks {others}"
    yield f"tasks harmed {len(result.harmed)}"
    yield from (f"  unreported: pid {pid}" for pid in deaths.unreported_pids[:_SHOWN])
    yield from (f"  wrong: {each}" for each in deaths.wrong[:_SHOWN])
    yield from (f"  harmed: {each}" for each in result.harmed[:_SHOWN])
    yield "all right" if result.all_right else "NOT all right"
