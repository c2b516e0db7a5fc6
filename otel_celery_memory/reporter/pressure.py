"""When a limit is near, and how soon to look again. Pure.

A container that is killed as a whole sends nothing afterwards, so what it was doing is told when
90 % of the nearest limit are used. The nearer the limit, the more often we look; looking may cost
a fiftieth of one core at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from otel_celery_memory import conventions as c

TELL_AT, OVER_BELOW = 0.9, 0.8
"""Shares of a limit: an episode begins at the one and is over below the other."""
LOOK_S, SHORTEST_LOOK_S = 0.5, 0.05
_QUICKER_FROM = 0.7
_COST_FACTOR = 50
"""Looking may take at most a fiftieth of the time between two looks."""
_LOOKS_TO_THE_LIMIT = 4
RECYCLING_PAUSE_S = 60.0
"""A child over ``max_memory_per_child`` is recycled as it should be, many times an hour: told
once a minute."""

_Episode = tuple[str, int | None]
"""A kind of limit, and the process that it holds for, if any."""


@dataclass(frozen=True)
class Usage:
    """How much of one limit is used; ``pid`` of the process that it holds for, else ``None``."""

    kind: str
    pid: int | None
    used_bytes: int
    limit_bytes: int

    @property
    def share(self) -> float:
        """1 is at the limit; a limit of nothing is reached."""
        return self.used_bytes / self.limit_bytes if self.limit_bytes > 0 else 1.0


class PressureGauge:
    """Follows all limits; says once for each episode that one is near."""

    def __init__(self) -> None:
        self._pressed: dict[_Episode, float] = {}
        self._before: dict[tuple[str, int | None, int], tuple[float, int]] = {}

    def begun(self, usages: Sequence[Usage], now_s: float) -> list[Usage]:
        """The limits that have come near since the last call, the nearest first."""
        nearest: dict[_Episode, Usage] = {}
        for usage in usages:
            episode = _episode_of(usage)
            known = nearest.get(episode)
            if known is None or usage.share > known.share:
                nearest[episode] = usage
        for episode, begun_s in list(self._pressed.items()):
            over = episode not in nearest or nearest[episode].share < OVER_BELOW
            if over and now_s - begun_s >= _pause_s(episode):
                del self._pressed[episode]
        begun = {
            episode: usage
            for episode, usage in nearest.items()
            if usage.share >= TELL_AT and episode not in self._pressed
        }
        self._pressed.update(dict.fromkeys(begun, now_s))
        return sorted(begun.values(), key=lambda usage: -usage.share)

    def next_look_s(self, usages: Sequence[Usage], now_s: float, cost_s: float) -> float:
        """Seconds until the next look, by the nearest limit and by how fast it comes nearer."""
        wanted_s = LOOK_S
        before, self._before = self._before, {}
        for usage in usages:
            key = (usage.kind, usage.pid, usage.limit_bytes)
            self._before[key] = (now_s, usage.used_bytes)
            left = max(1 - usage.share, 0.0)
            wanted_s = min(wanted_s, LOOK_S * left / (1 - _QUICKER_FROM))
            then_s, then_bytes = before.get(key, (now_s, usage.used_bytes))
            grown_bytes = usage.used_bytes - then_bytes
            if grown_bytes > 0 and now_s > then_s:
                left_s = (usage.limit_bytes - usage.used_bytes) * (now_s - then_s) / grown_bytes
                wanted_s = min(wanted_s, left_s / _LOOKS_TO_THE_LIMIT)
        return min(max(wanted_s, SHORTEST_LOOK_S, cost_s * _COST_FACTOR), LOOK_S * _COST_FACTOR)


def _episode_of(usage: Usage) -> _Episode:
    """Cgroups around one another are one; so are children that are recycled all the time."""
    return usage.kind, None if usage.kind == c.LIMIT_MAX_MEMORY else usage.pid


def _pause_s(episode: _Episode) -> float:
    return RECYCLING_PAUSE_S if episode[0] == c.LIMIT_MAX_MEMORY else 0.0
