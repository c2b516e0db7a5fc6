"""What runs of each task name cost, untraced and traced, as the sampler learns it. Pure."""

from __future__ import annotations

from collections.abc import Callable

SLOWDOWN_AT_FIRST = 6.0
NAMES_MAX = 200
_FORGET_S = 3_600.0
_OTHER = "_other"


class TaskCosts:
    """What is known of one task name; times are means that follow slowly."""

    __slots__ = (
        "cpu_s",
        "denied_s",
        "due_s",
        "runs",
        "seen_s",
        "slowdown",
        "traced",
        "wall_longest_s",
        "wall_s",
    )

    def __init__(self, due_s: float, now_s: float) -> None:
        self.runs = 0
        self.cpu_s = 0.0
        self.wall_s = 0.0
        self.wall_longest_s = 0.0
        self.slowdown = SLOWDOWN_AT_FIRST
        self.due_s = due_s
        self.traced = False
        self.seen_s = now_s
        self.denied_s: float | None = None

    def ran(self, cpu_s: float, wall_s: float, now_s: float) -> None:
        """A run took so long untraced."""
        self.runs += 1
        if self.runs < 20:
            # The first run may have imported much: the second takes its place.
            weight = 1 / max(self.runs - 1, 1)
        elif self.runs & 7:
            return  # one in eight is enough to follow
        else:
            weight = 0.05
        self.cpu_s += (cpu_s - self.cpu_s) * weight
        self.wall_s += (wall_s - self.wall_s) * weight
        longest_s = self.wall_longest_s * 0.99
        self.wall_longest_s = wall_s if wall_s > longest_s else longest_s
        self.seen_s = now_s

    def was_traced(self, cpu_s: float, now_s: float, *, whole: bool, aborted: bool) -> None:
        """A run, or what was seen of it, took `cpu_s` traced."""
        self.seen_s = now_s
        self.denied_s = None
        self.traced = True
        if not whole:
            self._learn(SLOWDOWN_AT_FIRST, 0.03)
        elif self.runs and aborted:
            # It would have gone on: how far is not known.
            self._learn(1.5 * cpu_s / max(self.cpu_s, 1e-6), 1.0)
        elif self.runs:
            self._learn(cpu_s / max(self.cpu_s, 1e-6), 0.3)

    def _learn(self, slowdown: float, weight: float) -> None:
        self.slowdown += (max(slowdown, 1.0) - self.slowdown) * weight


class KnownCosts:
    """Costs by name, of at most `NAMES_MAX`: those that come later share one place."""

    def __init__(self, first_due_s: Callable[[float], float]) -> None:
        self._first_due_s = first_due_s
        self._costs: dict[str, TaskCosts] = {}
        self._full_until_s = 0.0

    def __len__(self) -> int:
        return len(self._costs)

    def __contains__(self, task: object) -> bool:
        return task in self._costs

    def of(self, task: str, now_s: float) -> TaskCosts:
        """What is known of this name; it is met if it was not known."""
        costs = self._costs.get(task)
        return self._meet(task, now_s) if costs is None else costs

    def seen_since(self, then_s: float) -> int:
        """How many names have run since then."""
        # A copy: the guard's thread asks, while tasks are met.
        return sum(costs.seen_s >= then_s for costs in list(self._costs.values()))

    def runs(self) -> tuple[int, float]:
        """How many runs were not traced, of all names, and how long one took on the mean."""
        known = list(self._costs.values())
        runs = sum(costs.runs for costs in known)
        return runs, sum(costs.runs * costs.wall_s for costs in known) / runs if runs else 0.0

    def _meet(self, task: str, now_s: float) -> TaskCosts:
        if len(self._costs) >= NAMES_MAX and not self._makes_room(now_s):
            task = _OTHER
        # Another thread may meet or forget it meanwhile.
        return self._costs.setdefault(task, TaskCosts(self._first_due_s(now_s), now_s))

    def _makes_room(self, now_s: float) -> bool:
        """Forget the name that has not run for longest, if that is long."""
        if now_s < self._full_until_s:
            return False
        # One place is kept for those that share it.
        known = [(costs.seen_s, name) for name, costs in list(self._costs.items())]
        seen_s, oldest = min(found for found in known if found[1] != _OTHER)
        self._full_until_s = seen_s + _FORGET_S
        if now_s < self._full_until_s and _OTHER in self._costs:
            return False
        self._costs.pop(oldest, None)
        return now_s >= self._full_until_s
