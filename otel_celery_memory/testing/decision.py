"""From the levels of one process between its runs to what grows in it. Pure.

The runs are cut into steps of equal length, and each resource's levels after these go to the
detector that judges workers (`otel_celery_memory.leaks.growth`). Here nothing else runs in the
process, garbage is collected before each level, and nobody waits for an hour; so the rules differ:

- A growth must be as unlikely by chance as 1 in `E_VALUE` at a time. A level that stands still, or
  wanders about, is called growth in at most ``steps / E_VALUE`` of tests: 50 in 100,000 of each
  resource (Ville's inequality for the sum of bets that begin at each step).
- It must be more than `LEAST` has for the resource: what a pool may open, or what the caches of an
  allocator make.
- It is decided after the last step alone, and its latest third must grow as fast as what came
  before: a cache that fills up passes if it is full, or nearly so, before the runs are over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from otel_celery_memory.leaks.conclusion import Growing
from otel_celery_memory.leaks.growth import GrowthDetector, GrowthRules, GrowthVerdict, Step
from otel_celery_memory.leaks.resource import KINDS, Resource
from otel_celery_memory.leaks.verdict import Interval, State

STEPS = 50
E_VALUE = 1e5
STEP_S = 30.0
"""The detector dates in seconds and forgets a growth that stands still for two minutes and more:
here for four steps and more."""
WARM_UP_SHARE = 6
"""One in so many runs is warm-up."""
_KIB, _MIB = 1024, 1024 * 1024
LEAST: dict[Resource, float] = {
    Resource.HEAP: 4 * _KIB,
    Resource.OTHER: 4 * _MIB,
    Resource.OPEN_FILES: 10,
    Resource.THREADS: 10,
    Resource.DESCENDANTS: 4 * _MIB,
}
"""What is judged, and what it must have grown by."""


def plan(runs: int) -> tuple[int, int, int]:
    """How many runs are warm-up, how many steps follow, and how many runs each of these has.

    What cannot be divided belongs to the warm-up.
    """
    measured = runs - max(runs // WARM_UP_SHARE, 1)
    each = max(measured // STEPS, 1)
    steps = min(STEPS, measured)
    return runs - steps * each, steps, each


def growing(levels: Mapping[Resource, Sequence[float]], runs_each: int) -> tuple[Growing, ...]:
    """What grows without an end in sight.

    ``levels`` of each resource are those before the first step and after each; a resource that
    cannot be read is left out.
    """
    found = ((resource, _judge(resource, series, runs_each)) for resource, series in levels.items())
    return tuple(
        Growing(
            resource,
            State.LEAKING,
            verdict.since_s,
            verdict.grown,
            verdict.rate_per_s or Interval(0.0, 0.0, 0.0),
            verdict.rate,
            verdict.runs,
            1,
            unexplained_s=0.0,
        )
        for resource, verdict in found
        if verdict is not None and verdict.state == State.LEAKING
    )


def _judge(resource: Resource, series: Sequence[float], runs_each: int) -> GrowthVerdict | None:
    """What the detector says after the last step; ``None`` where there was none."""
    steps = len(series) - 1
    rules = GrowthRules(
        kind=KINDS[resource],
        suspected_e=E_VALUE,
        leaking_e=E_VALUE,
        least_grown=LEAST[resource],
        cache=LEAST[resource],
        collectable=False,
        # No process is old enough before the last step.
        least_age_s=(steps - 0.5) * STEP_S,
    )
    detector, verdict = GrowthDetector(rules), None
    for number, (before, after) in enumerate(pairwise(series), start=1):
        at_s = number * STEP_S
        verdict = detector.add(Step(at_s, after - before, runs_each, at_s))
    return verdict
