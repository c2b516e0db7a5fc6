"""The verdicts that stand, those that have ended lately, and which of them are news."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from otel_celery_memory.leaks.verdict import State, Verdict

_MISSING_STEPS = 12
"""A verdict that is not drawn any more for so many steps, a minute, has ended."""
_KEPT_S = 24 * 3_600.0
"""How long a leak that has ended is shown."""
_NEWS_S = 30.0
"""A place or a holder that changes is emitted after that time at the earliest, the first one at
once."""
_KNOWN_S = 600.0
"""What was known of a leak that has ended is taken up again if it begins anew within that time."""
_VERDICTS_MAX = 50


_BY_STATE = (State.LEAKING, State.SUSPECTED, State.ENDED)


def ranked(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """What leaks first, what has ended last; among those of one state whoever is named first, and
    of these the fastest."""
    return sorted(
        verdicts,
        key=lambda each: (_BY_STATE.index(each.state), _names_nobody(each), -each.rate_per_s),
    )


def _names_nobody(verdict: Verdict) -> bool:
    return not verdict.task and verdict.place is None and verdict.holder is None


@dataclass
class _Standing:
    """A verdict as it is now, and as it was emitted."""

    verdict: Verdict
    emitted: Verdict
    missing: int = 0
    emitted_s: float = 0.0


@dataclass
class StandingVerdicts:
    """The verdicts that stand, and those that have ended within a day; decides what is news."""

    _standing: dict[tuple[str, str, str], _Standing] = field(default_factory=dict)

    def update(self, drawn: Sequence[Verdict], now_s: float) -> list[Verdict]:
        """Takes the verdicts of a step; returns those to emit: begun, changed or ended."""
        news = []
        for each in drawn:
            known = self._standing.get(each.key)
            verdict = each if known is None else _with_what_was_known(each, known.verdict, now_s)
            if known is None and len(self._standing) >= _VERDICTS_MAX:
                continue
            if known is None or _is_news(known, verdict, now_s):
                news.append(verdict)
                self._standing[verdict.key] = _Standing(verdict, verdict, emitted_s=now_s)
            else:
                self._standing[verdict.key] = replace(known, verdict=verdict, missing=0)
        drawn_keys = {verdict.key for verdict in drawn}
        for key, known in list(self._standing.items()):
            if key in drawn_keys:
                continue
            if known.verdict.state != State.ENDED:
                known.missing += 1
                if known.missing >= _MISSING_STEPS:
                    ended = _ended(known.verdict, now_s)
                    self._standing[key] = _Standing(ended, ended, emitted_s=now_s)
                    news.append(ended)
            elif now_s - known.verdict.now_s > _KEPT_S:
                del self._standing[key]
        return news

    @property
    def all(self) -> tuple[Verdict, ...]:
        """Those that stand: leaking, then suspected, then ended, the fastest first."""
        return tuple(ranked(each.verdict for each in self._standing.values()))

    def clear(self) -> None:
        """Forgets all."""
        self._standing.clear()


def _with_what_was_known(verdict: Verdict, before: Verdict, now_s: float) -> Verdict:
    """With the place and the holder found before, unless others have been found since."""
    if before.state == State.ENDED and now_s - before.now_s > _KNOWN_S:
        return verdict
    return replace(
        verdict, place=verdict.place or before.place, holder=verdict.holder or before.holder
    )


def _ended(verdict: Verdict, now_s: float) -> Verdict:
    was_sure = verdict.state == State.LEAKING
    why = () if was_sure else ("it stands still, and was never more than suspected",)
    return replace(verdict, state=State.ENDED, now_s=now_s, reasons=why, forecast=None)


def _is_news(known: _Standing, now: Verdict, now_s: float) -> bool:
    """Whether somebody who has read the verdict before has to read it again."""
    before, place, holder = known.emitted, now.place, now.holder
    if before.state != now.state:
        return True
    if (place and not before.place) or (holder and not before.holder):
        return True
    if now_s - known.emitted_s < _NEWS_S:
        return False
    has_place = place is not None and before.place is not None and before.place.name != place.name
    has_holder = (
        holder is not None and before.holder is not None and before.holder.chain != holder.chain
    )
    return has_place or has_holder or before.condition != now.condition
