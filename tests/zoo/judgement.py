"""Whether what was said of a case is right: pure functions of verdicts and of the right answer.

Who leaks may be said to be suspected or leaking. Whoever only fills up may be suspected, as it does
grow. Anybody else who is named as growing is accused though innocent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from demo.receiver import Event, Point
from otel_celery_memory import conventions as c
from tests.truth.case import ANY, Case, Shape
from tests.truth.conclusions import place, short
from tests.zoo.said import ENDED, LEAKING, Said, standing

_ORDER = {LEAKING: 0, "suspected": 1, ENDED: 2}


@dataclass(frozen=True)
class Reached:
    """How long it took to a state: seconds since tasks were first sent, and runs of the task."""

    seconds: float
    runs: int


@dataclass(frozen=True)
class Judgement:
    """What was said of one case, beside what is true.

    ``main`` is the verdict on who leaks, as it was said last, ``None`` if nothing was. Of healthy
    cases it is the one that came nearest to an alarm. ``others`` are further verdicts on the same
    task: another kind, or another place. ``line_rank`` is 1 if the verdict names the right line,
    else the rank of that line among the allocation sites, ``None`` if it is not there.
    """

    shape: Shape
    main: Said | None
    others: tuple[Said, ...]
    accused: tuple[Said, ...]
    second: tuple[Said, ...]
    line_rank: int | None
    suspected: Reached | None
    leaking: Reached | None

    @property
    def leaks(self) -> bool:
        """Whether the case leaks."""
        return self.shape.case.leaks is not None

    @property
    def said(self) -> str:
        """The furthest that it came with who is to blame, or with anybody where nobody is."""
        if self.leaking is not None:
            return LEAKING
        return "suspected" if self.suspected is not None else "nothing"

    @property
    def is_still_suspected(self) -> bool:
        """Whether it is healthy, and a suspicion stood when the case was over."""
        return not self.leaks and self.main is not None and self.main.stands

    @property
    def kind_is_right(self) -> bool:
        """Whether what grows, and whose it is, are as declared."""
        case = self.shape.case
        return self.main is not None and (
            self.main.kind in case.kinds and self.main.where in case.where
        )

    @property
    def line_is_right(self) -> bool:
        """Whether the verdict names the line."""
        return self.line_rank == 1

    @property
    def holder_is_right(self) -> bool:
        """Whether the verdict's chain has what holds the objects."""
        return self.main is not None and holds(self.main.holder, self.shape.case.holder)

    @property
    def place_is_right(self) -> bool:
        """Whether line or holder is right, or neither can be told."""
        nothing_to_tell = not self.shape.lines and not self.shape.case.holder
        return nothing_to_tell or self.line_is_right or self.holder_is_right

    @property
    def condition_is_right(self) -> bool:
        """Whether it says in which runs it happens, and says nothing of the kind elsewhere."""
        return self.main is not None and self.main.condition == self.shape.case.condition

    @property
    def right(self) -> bool:
        """Whether all of it is right, and nobody innocent was accused."""
        if self.accused:
            return False
        if not self.leaks:
            return self.leaking is None
        return (
            self.main is not None
            and self.suspected is not None
            and self.main.stands is not self.shape.case.ends
            and self.kind_is_right
            and self.place_is_right
            and self.condition_is_right
        )


def judge(
    shape: Shape,
    said: Sequence[Said],
    began_ns: int,
    runs_until: Callable[[int], int],
    ranking: Sequence[str] = (),
) -> Judgement:
    """What is right of all that was said, the oldest first.

    ``runs_until`` says how often who is to blame had run at a time, ``ranking`` are the lines of
    the last allocation sites, the first first.
    """
    case = shape.case
    guilty = [each for each in said if is_guilty(case, each)]
    second = [each for each in said if not is_guilty(case, each) and each.task in case.also]
    nobody = [each for each in said if not each.task and each.where == "task"]
    to_blame = guilty if case.leaks is not None else [*guilty, *nobody]
    last = sorted(standing(to_blame), key=lambda each: _ORDER.get(each.state, 3))
    main = last[0] if last else None
    accused = [
        each
        for each in said
        if each.stands
        and each not in guilty
        and each not in second
        and each not in nobody
        and not (each.state != LEAKING and _fills(case, each))
    ]
    first: dict[str, Reached] = {}
    for each in to_blame if case.leaks is not None else (each for each in said):
        reached = Reached((each.at_ns - began_ns) / 1e9, runs_until(each.at_ns))
        first.setdefault(each.state, reached)
    leaking = first.get(LEAKING)
    return Judgement(
        shape,
        main,
        tuple(last[1:]),
        standing(accused),
        standing(second),
        line_rank(shape, main, ranking),
        first.get("suspected", leaking),
        leaking,
    )


def is_guilty(case: Case, said: Said) -> bool:
    """Whether it is said of who leaks, or of who fills up where nobody does.

    What leaks beside the tasks is no task's, or one's that it runs with: where it is decides.
    """
    if case.leaks is None:
        return _fills(case, said) and said.state != LEAKING
    if case.leaks == ANY:
        return said.where in case.where
    return said.task == case.leaks


def _fills(case: Case, said: Said) -> bool:
    return said.task in case.fills or said.where in case.fills


def holds(chain: str, names: Iterable[str]) -> bool:
    """Whether a chain has one of these names, as a whole word."""
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", chain) for name in names)


def line_rank(shape: Shape, main: Said | None, ranking: Sequence[str]) -> int | None:
    """The rank of the right line: 1 if the verdict names it, 2 or more if only a ranking does."""
    if main is not None and main.line in shape.lines:
        return 1
    ranks = [at for at, line in enumerate(ranking, 1) if line in shape.lines]
    return max(ranks[0], 2) if ranks and main is not None else None


def last_ranking(events: Iterable[Event]) -> tuple[str, ...]:
    """The lines of the newest allocation sites, by rank."""
    sites = [event for event in events if event.name == c.ALLOCATION_SITE.name]
    newest_ns = max((event.time_ns for event in sites), default=0)
    newest = [event for event in sites if event.time_ns == newest_ns]
    newest.sort(key=lambda event: int(event.attributes[c.SITE_RANK]))
    return tuple(place(event.attributes[c.SITE_NAME]) for event in newest)


def runs_of(points: Iterable[Point], task: str | None) -> Callable[[int], int]:
    """How many runs of a task, or of all for `ANY` and nobody, were measured until a time.

    Between two exports as many as if they were spread evenly.
    """
    streams: dict[tuple[object, ...], list[tuple[int, float]]] = {}
    for point in points:
        name = short(point.attributes.get(c.TASK_NAME))
        if point.metric == c.MEASURED.name and task in (None, ANY, name):
            key = (point.start_ns, *sorted((k, str(v)) for k, v in point.attributes.items()))
            stream = streams.setdefault(key, [(point.start_ns, 0.0)])
            stream.append((point.time_ns, point.value))

    def until(at_ns: int) -> int:
        return round(sum(_between(stream, at_ns) for stream in streams.values()))

    return until


def _between(stream: Sequence[tuple[int, float]], at_ns: int) -> float:
    before_ns, before = stream[0]
    for time_ns, value in stream:
        if time_ns >= at_ns:
            share = (at_ns - before_ns) / (time_ns - before_ns) if time_ns > before_ns else 1.0
            return before + (value - before) * max(share, 0.0)
        before_ns, before = time_ns, value
    return before
