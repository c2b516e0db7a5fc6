"""Decides whether a level grows: of memory, descriptors, threads, processes or messages.

A level is bounded noise, or steps and wanderings up and down, or it grows. The first is refuted by
ranks, the second by increases (`betting`), each for the least level of blocks of 5 s, 20 s, 80 s
and longer; the lesser of both counts. So neither a plateau nor a sawtooth nor heavy tails nor a
random walk is growth. Growth is `suspected`. It is `leaking` once there is overwhelming evidence
and a cache, a pool, warm-up and garbage are ruled out, and `ended` when the level stands still.

The promise: while either holds (block minima exchangeable, or increases symmetric around 0), the
mean time to a false `leaking` is at least ``GrowthRules.leaking_e`` steps, whatever else is asked
for. A process-day of 5 s steps has 17,280; 1,000 of them with 8 resources each are 1.4e8 steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from otel_celery_memory.leaks.blocks import STEP_S, BlockScale, Point
from otel_celery_memory.leaks.suspicion import Suspicion
from otel_celery_memory.leaks.verdict import Interval, Kind, State
from otel_celery_memory.leaks.words import amount, duration

KIB, MIB = 1024, 1024 * 1024
_LONGEST_STEP_S = 60.0
_WIDTHS = (1, 4, 16, 64, 256, 1024)
"""Lengths of blocks, in steps."""
_WEIGHTS = (0.3, 0.25, 0.15, 0.1, 0.1, 0.1)
_CLEAR_PORTIONS = 9
_LIKELY_PORTIONS, _LIKELY_AFTER_S = 2, 540.0
_LOOKS_BACK_S = (120.0, 300.0, 540.0, 1_200.0, 2_400.0, 4_800.0, 9_600.0, 19_200.0)


@dataclass(frozen=True)
class Step:
    """What happened in one worker in about 5 s.

    ``grown`` is the sum over its processes of how much the level changed, ``runs`` how many runs
    ended, ``age_s`` the age of the oldest process of those, ``processes`` how many they are.
    ``floor`` is how much the level right after a full collection differs from the one after the
    full collection before, summed over processes, and ``garbage`` what these collections freed;
    ``None`` if no full collection came. ``held`` says that what grows is known to be reachable, by
    names. ``time_s`` may jump: it only dates what is told.
    """

    time_s: float
    grown: float
    runs: int
    age_s: float
    floor: float | None = None
    garbage: float = 0.0
    processes: int = 1
    held: bool = False


@dataclass(frozen=True)
class GrowthRules:
    """What is asked for before growth is called a leak. Amounts are in the unit of ``kind``.

    ``cache`` is what a cache or a pool of one process may fill, ``limit_share`` the share of the
    worker's limit that they may fill together, if that is less. ``collectable`` says that it may
    be garbage: of ``covered_share`` of the growth full collections have to have kept
    ``floor_share``, or what holds it has to be known, or no collection may have come for
    ``floor_wait_s``.
    """

    kind: Kind = Kind.PYTHON
    suspected_e: float = 300.0
    leaking_e: float = 1.4e8
    least_grown: float = 256 * KIB
    least_grown_each: float = 0.0
    """What each process may grow by once, before that is worth a suspicion."""
    cache: float = 64 * MIB
    limit_share: float = 0.1
    collectable: bool = True
    floor_wait_s: float = 3_600.0
    covered_share: float = 0.1
    floor_share: float = 0.5
    steady: float = 0.75
    """Least rate of the latest third of the runs, as a share of the rate before."""
    least_age_s: float = 180.0
    still: float = 0.2
    """Growth below this share of the rate before is none."""
    given_back: float = 0.3
    """It has ended when less than this share of it is left."""
    ended_for_s: float = 1_800.0
    """How long an ended leak is told."""


def counted_rules(kind: Kind, cache: float = 100.0) -> GrowthRules:
    """Rules for descriptors, threads, processes and messages, of which 20 are worth a suspicion."""
    return GrowthRules(kind=kind, least_grown=20.0, cache=cache, limit_share=0.5, collectable=False)


@dataclass(frozen=True)
class GrowthVerdict:
    """Whether it grows. ``rate`` is by run and ``rate_per_s`` by second, of all processes together.

    ``evidence`` is the common logarithm of the e-value: 8 is as unlikely as 1 in 10**8 by chance.
    """

    state: State | None
    now_s: float
    since_s: float
    grown: float = 0.0
    runs: int = 0
    rate: Interval | None = None
    rate_per_s: Interval | None = None
    reasons: tuple[str, ...] = ()
    evidence: float = 0.0


class GrowthDetector:
    """Watches one resource of one worker. Bounded: about 1,000 numbers."""

    def __init__(self, rules: GrowthRules | None = None) -> None:
        self.rules = rules or GrowthRules()
        self._scales = [BlockScale(width) for width in _WIDTHS]
        self._newest: deque[float] = deque(maxlen=3)
        self._level = 0.0
        self._at_s = 0.0
        self._runs = 0
        self._time_s: float | None = None
        self._last: Suspicion | None = None

    def add(self, step: Step, limit: float | None = None) -> GrowthVerdict:
        """One more step. ``limit`` is what all processes of the worker may have together."""
        point = self._take(step)
        for scale in self._scales:
            scale.add(point)
        if self._last is None or self._last.ended is not None:
            suspicion = self._suspect(point, max(1, step.processes))
            if suspicion is None:
                return self._no_suspicion(step, point)
            suspicion.ended, self._last = None, suspicion
        return self._watch(self._last, point, step, limit)

    def _take(self, step: Step) -> Point:
        passed = STEP_S if self._time_s is None else step.time_s - self._time_s
        if not passed > 0.0:
            passed = STEP_S
        self._at_s += min(passed, _LONGEST_STEP_S)
        self._time_s = step.time_s
        if math.isfinite(step.grown):
            self._level += step.grown
        self._runs += max(0, step.runs)
        self._newest.append(self._level)
        ordered = sorted(self._newest)
        return Point(self._at_s, ordered[(len(ordered) - 1) // 2], self._runs)

    @property
    def evidence(self) -> float:
        """The e-detector's value: a mixture over blocks of all lengths."""
        return sum(w * s.evidence for w, s in zip(_WEIGHTS, self._scales, strict=True))

    def _suspect(self, point: Point, processes: int) -> Suspicion | None:
        """A suspicion that begins, or the last one again if it goes on as before."""
        rules, last = self.rules, self._last
        if last is not None and last.ended is not None:
            grown = point.level - last.ended.level
            expected = last.expected(last.ended, point)
            goes_on = expected is not None and grown >= max(rules.least_grown, 0.5 * expected)
            if goes_on and last.keeps(last.ended.level, rules.given_back):
                return last
        if self.evidence < rules.suspected_e:
            return None
        parts = [w * s.evidence for w, s in zip(_WEIGHTS, self._scales, strict=True)]
        scale = self._scales[parts.index(max(parts))]
        onset = scale.onset
        least_grown = max(rules.least_grown, rules.least_grown_each * processes)
        if onset is None or point.level - onset.level < least_grown:
            return None
        suspicion = Suspicion(onset, scale.width)
        for each in [*scale.points, point]:
            suspicion.stretch(each)
        return suspicion

    def _no_suspicion(self, step: Step, point: Point) -> GrowthVerdict:
        last = self._last
        if last is not None and last.ended is not None:
            if point.at_s - last.ended.at_s < self.rules.ended_for_s:
                return self._verdict(State.ENDED, last, last.ended, step, (last.why_ended,))
            self._last = None
        return GrowthVerdict(None, step.time_s, step.time_s, evidence=_log10(self.evidence))

    def _watch(
        self, suspicion: Suspicion, point: Point, step: Step, limit: float | None
    ) -> GrowthVerdict:
        suspicion.extend(point)
        suspicion.log_e = max(suspicion.log_e, _log10(self.evidence))
        if step.floor is not None and math.isfinite(step.floor):
            suspicion.floor(point.at_s, step.floor, step.garbage)
        if (why := self._ending(suspicion, point)) is not None:
            suspicion.end(point, why)
            for scale in self._scales:
                scale.forget()
            return self._no_suspicion(step, point)
        missing = self._missing(suspicion, point, step, limit)
        if not missing:
            suspicion.leaking = True
        if suspicion.leaking:
            reasons = self._grounds(suspicion, point)
            return self._verdict(State.LEAKING, suspicion, point, step, reasons)
        return self._verdict(State.SUSPECTED, suspicion, point, step, missing)

    def _missing(
        self, suspicion: Suspicion, point: Point, step: Step, limit: float | None
    ) -> tuple[str, ...]:
        """What is missing for a leak."""
        rules, kind = self.rules, self.rules.kind
        reasons = []
        most = rules.cache * max(1, step.processes)
        if limit is not None and limit > 0:
            most = min(most, rules.limit_share * limit)
        lived = self._look_back(step.age_s)
        grown = point.level - max(suspicion.onset, lived, key=lambda each: each.at_s).level
        if grown < most:
            reasons.append(
                f"a cache of {amount(most, kind)} may still be filling: "
                f"it has grown by {amount(max(0.0, grown), kind)}"
            )
        if suspicion.steadiness < rules.steady:
            reasons.append("it has slowed down, as a cache does that fills up")
        if rules.collectable:
            reasons += self._garbage(suspicion, point, step)
        if step.age_s < rules.least_age_s:
            reasons.append(
                f"its processes are younger than {duration(rules.least_age_s)}, and may warm up"
            )
        if suspicion.log_e < math.log10(rules.leaking_e):
            reasons.append(
                f"chance is not ruled out yet: 1 in 10^{suspicion.log_e:.0f}, "
                f"and 1 in 10^{math.log10(rules.leaking_e):.0f} is asked for"
            )
        return tuple(reasons)

    def _garbage(self, suspicion: Suspicion, point: Point, step: Step) -> list[str]:
        rules = self.rules
        if self._is_covered(suspicion, point):
            if suspicion.confirmed < rules.floor_share * suspicion.covered:
                return ["full collections free half of it or more: it is garbage that waits"]
        elif not step.held and point.at_s - suspicion.floor_at_s < rules.floor_wait_s:
            return ["full collections have not confirmed it yet: it may be garbage"]
        return []

    def _is_covered(self, suspicion: Suspicion, point: Point) -> bool:
        grown = point.level - suspicion.onset.level
        return suspicion.covered >= self.rules.covered_share * max(grown, 1.0)

    def _grounds(self, suspicion: Suspicion, point: Point) -> tuple[str, ...]:
        grown = amount(point.level - suspicion.onset.level, self.rules.kind)
        spent = duration(point.at_s - suspicion.onset.at_s)
        reasons = [f"it has grown by {grown} in {spent}, which no cache of a process explains"]
        if self.rules.collectable and self._is_covered(suspicion, point):
            reasons.append("full collections do not free it")
        return tuple(reasons)

    def _ending(self, suspicion: Suspicion, point: Point) -> str | None:
        """Why it has stopped, if it has.

        It has if it would have grown by nine of its usual portions, or, unless it is known as a
        leak, by two in nine minutes: then it goes on as the same suspicion if it grows again.
        """
        onset, rules = suspicion.onset, self.rules
        if not suspicion.keeps(point.level, rules.given_back):
            return "what had grown was given back"
        for back_s in _LOOKS_BACK_S:
            then = self._look_back(back_s)
            if then.at_s - onset.at_s < 0.2 * back_s or point.at_s - then.at_s < 0.9 * back_s:
                break
            expected, grown = suspicion.expected(then, point), point.level - then.level
            if expected is None:
                continue
            clear = expected >= _CLEAR_PORTIONS * suspicion.lump and grown < rules.still * expected
            likely = (
                back_s >= _LIKELY_AFTER_S
                and not suspicion.leaking
                and expected >= _LIKELY_PORTIONS * suspicion.lump
                and grown < 0.5 * rules.still * expected
            )
            if clear or likely:
                return f"it has not grown for {duration(back_s)}"
        return None

    def _look_back(self, seconds: float) -> Point:
        """The level so long ago, or the oldest that is remembered."""
        wanted = self._at_s - seconds
        oldest: Point | None = None
        for scale in self._scales:
            for each in reversed(scale.points):
                if oldest is None or each.at_s < oldest.at_s:
                    oldest = each
                if each.at_s <= wanted:
                    return each
        return oldest or Point(self._at_s, self._level, self._runs)

    def _verdict(
        self,
        state: State,
        suspicion: Suspicion,
        until: Point,
        step: Step,
        reasons: tuple[str, ...],
    ) -> GrowthVerdict:
        level = suspicion.top if state is State.ENDED else until.level
        return GrowthVerdict(
            state,
            step.time_s - (self._at_s - until.at_s),
            step.time_s - (self._at_s - suspicion.onset.at_s),
            level - suspicion.onset.level,
            until.runs - suspicion.onset.runs,
            suspicion.rate,
            suspicion.rate_per_s,
            reasons,
            suspicion.log_e,
        )

    def state(self) -> dict[str, Any]:
        """Everything that it knows, for JSON."""
        suspicion = self._last
        return {
            "scales": [scale.state() for scale in self._scales],
            "newest": list(self._newest),
            "level": self._level,
            "at_s": self._at_s,
            "runs": self._runs,
            "time_s": self._time_s,
            "suspicion": None if suspicion is None else suspicion.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what ``state`` returned, in a new detector.

        Raises ``ValueError``, ``TypeError`` or ``KeyError`` for what it did not return.
        """
        for scale, kept in zip(self._scales, state["scales"], strict=True):
            scale.restore(kept)
        self._newest.extend(map(float, state["newest"]))
        self._level, self._at_s = float(state["level"]), float(state["at_s"])
        self._runs, self._time_s = int(state["runs"]), state["time_s"]
        suspicion = state["suspicion"]
        self._last = None if suspicion is None else Suspicion.restored(suspicion)


def _log10(value: float) -> float:
    return math.log10(value) if value > 1.0 else 0.0
