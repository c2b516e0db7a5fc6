"""The difference of two captures, and what must be known before one believes it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from otel_celery_memory.captures.errors import CaptureError
from otel_celery_memory.captures.grouping import TRACEBACK, Group, grouped, runs_of
from otel_celery_memory.captures.model import HEAP, KINDS, Capture


@dataclass(frozen=True)
class Change:
    """One place in two captures; a place that one of them has not is there with nothing at it."""

    before: Group
    after: Group

    @property
    def size_bytes(self) -> int:
        """Bytes more in the second capture."""
        return self.after.size_bytes - self.before.size_bytes

    @property
    def blocks(self) -> int:
        """Blocks more in the second capture."""
        return self.after.blocks - self.before.blocks

    @property
    def run_bytes(self) -> float | None:
        """Bytes more a run; ``None`` where the task was not traced in both captures."""
        before, after = self.before.run_bytes, self.after.run_bytes
        return None if before is None or after is None else after - before

    @property
    def weight(self) -> float:
        """What changes are ranked by: bytes, or bytes a run where sizes were added up over runs."""
        if self.after.runs is None:
            return self.size_bytes
        return (self.after.run_bytes or 0.0) - (self.before.run_bytes or 0.0)


def compare(before: Capture, after: Capture, by: str) -> list[Change]:
    """What differs by place, the largest change first, growth before shrinking of the same size.

    Sizes added up over runs are ranked by their mean: ten runs of a healthy task sum up to ten
    times what one does. Where nothing changed the larger place comes first.

    Raises `CaptureError` for captures of different kinds: what is alive less what runs left behind
    is no size of anything. Nor do stacks of different depth ever match.
    """
    if before.kind != after.kind:
        raise CaptureError(
            f"a capture of kind {before.kind} ({KINDS[before.kind]}) cannot be compared with one "
            f"of kind {after.kind} ({KINDS[after.kind]})"
        )
    if by == TRACEBACK and before.frames != after.frames:
        raise CaptureError(
            f"tracebacks of {before.frames} and of {after.frames} frames cannot be compared: "
            "compare by line"
        )
    old = {group.key: group for group in grouped(before, by)}
    new = {group.key: group for group in grouped(after, by)}
    changes = [
        Change(old.get(key) or _nothing(before, key), new.get(key) or _nothing(after, key))
        for key in old.keys() | new.keys()
    ]
    return sorted(changes, key=_rank)


def caveats(before: Capture, after: Capture) -> Iterator[str]:
    """What makes a difference mean less than it seems, one line each."""
    if before.worker != after.worker:
        yield "the captures are of different workers"
    if after.taken_ns < before.taken_ns:
        yield "AFTER was taken before BEFORE"
    if before.frames != after.frames:
        yield "traced at different depths: a site may be owned by different lines"
    if before.kind == HEAP:
        gone = {each.pid for each in before.processes} - {each.pid for each in after.processes}
        if gone:
            yield (
                f"{len(gone)} of {len(before.processes)} processes are gone since BEFORE, "
                "and what they held with them"
            )
    beyond = max(abs(before.other_bytes), abs(after.other_bytes))
    if beyond:
        yield f"up to {beyond:,} bytes lie at sites beyond the captures' bound, and in no line"


def _nothing(capture: Capture, key: tuple[str, str, tuple[str, ...]]) -> Group:
    return Group(*key, size_bytes=0, blocks=0, function=None, runs=runs_of(capture, key[0]))


def _rank(change: Change) -> tuple[object, ...]:
    weight = change.weight
    return (-abs(weight), -weight, -change.after.size_bytes, change.after.key)
