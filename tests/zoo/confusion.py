"""The confusion matrix of many judgements, with precision and recall beside those of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.zoo.judgement import Judgement
from tests.zoo.said import LEAKING

RESIN = (0.85, 0.91)
"""Precision and recall of RESIN, OSDI '22."""


@dataclass(frozen=True)
class Confusion:
    """Cases by what is true and what was said.

    A case that leaks is missed where somebody else alone was named; and naming somebody innocent is
    a false alarm, beside whatever else was said of the case.
    """

    found: int
    missed: int
    false_alarms: int
    healthy: int

    @property
    def precision(self) -> float | None:
        """Of what was said to leak, the share that does."""
        said = self.found + self.false_alarms
        return self.found / said if said else None

    @property
    def recall(self) -> float | None:
        """Of what leaks, the share that was said to."""
        leaks = self.found + self.missed
        return self.found / leaks if leaks else None


def confusion(judgements: Sequence[Judgement], states: Sequence[str]) -> Confusion:
    """Counts cases, where these states count as having said so."""

    def found(each: Judgement) -> bool:
        return each.leaks and each.said in states

    def alarmed(each: Judgement) -> bool:
        innocent = any(said.state in states for said in each.accused)
        return innocent or (not each.leaks and each.said in states)

    leaks = [each for each in judgements if each.leaks]
    healthy = [each for each in judgements if not each.leaks]
    right = sum(map(found, leaks))
    return Confusion(
        right,
        len(leaks) - right,
        sum(map(alarmed, judgements)),
        len(healthy) - sum(map(alarmed, healthy)),
    )


def matrix(judgements: Sequence[Judgement]) -> str:
    """Both readings of what was said, and how many of the leaks were told right in each part."""
    lines = [
        f"{'':26}  leaks, found  leaks, missed  false alarms  healthy, quiet  precision  recall",
        *(
            _line(name, confusion(judgements, states))
            for name, states in (
                ("said to be leaking", (LEAKING,)),
                ("suspected, or leaking", ("suspected", LEAKING)),
            )
        ),
        f"{'RESIN (OSDI 22)':26}  {'':12}  {'':13}  {'':12}  {'':14}  "
        f"{RESIN[0]:9.0%}  {RESIN[1]:6.0%}",
    ]
    return "\n".join([*lines, "", *_shares(judgements)])


def _line(name: str, of: Confusion) -> str:
    return (
        f"{name:26}  {of.found:12}  {of.missed:13}  {of.false_alarms:12}  {of.healthy:14}  "
        f"{_share(of.precision):>9}  {_share(of.recall):>6}"
    )


def _shares(judgements: Sequence[Judgement]) -> list[str]:
    """Of the leaks: how many are told right in each respect. All count, those of which nothing was
    said too."""
    leaks = [each for each in judgements if each.leaks]
    held = [each for each in leaks if "python" in each.shape.case.kinds]
    parts: tuple[tuple[str, Sequence[Judgement], Callable[[Judgement], bool]], ...] = (
        ("right task", leaks, lambda each: each.said != "nothing"),
        ("right kind", leaks, lambda each: each.kind_is_right),
        ("line or holder first, of those held by Python objects", held, _place_is_said),
        (
            "the other leak too",
            [e for e in leaks if e.shape.case.also],
            lambda each: bool(each.second),
        ),
        ("right condition", [e for e in leaks if e.shape.case.condition], _condition_is_said),
    )
    accusing = sum(bool(each.accused) for each in judgements)
    suspected = sum(each.is_still_suspected for each in judgements)
    healthy = len(judgements) - len(leaks)
    return [
        *(
            f"{name}: {sum(map(right, among))} of {len(among)}"
            for name, among, right in parts
            if among
        ),
        f"cases that accuse somebody innocent: {accusing} of {len(judgements)}",
        f"healthy cases still suspected at their end: {suspected} of {healthy}",
    ]


def _place_is_said(each: Judgement) -> bool:
    return each.main is not None and each.place_is_right


def _condition_is_said(each: Judgement) -> bool:
    return each.condition_is_right


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
