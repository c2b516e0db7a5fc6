"""Judgements for people: a table of them, and one in whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from demo.receiver import Point
from otel_celery_memory import conventions as c
from tests.truth.conclusions import Seen, short
from tests.zoo.judgement import Judgement, Reached
from tests.zoo.said import Said, inspected, said_in

_HEADS = (
    "case",
    "expected",
    "",
    "state",
    "kind",
    "task",
    "line",
    "holder",
    "to suspected",
    "to leaking",
    "accused",
)


def expected(judgement: Judgement) -> str:
    """The right answer."""
    case = judgement.shape.case
    if case.leaks is None:
        return "nobody" + (f", {', '.join(case.fills)} may be suspected" if case.fills else "")
    what = f"{'/'.join(case.kinds)} in {'/'.join(case.where)}"
    place = " or ".join((*judgement.shape.lines, *case.holder))
    ends = "until it is mended" if case.ends else ""
    return " ".join(filter(None, (case.leaks, what, place, case.condition, ends)))


def table(judgements: Sequence[Judgement]) -> str:
    """All in columns; ``!`` where it is wrong."""
    cells = [_HEADS, *map(_cells, judgements)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def row(judgement: Judgement) -> str:
    """One case as soon as it is over, with the verdict's words."""
    main = judgement.main
    words = main.words if main is not None and main.words else "nothing was said"
    if main is None and judgement.accused:
        words = "nothing was said of who leaks" if judgement.leaks else "see who is accused"
    marks = [f"   accused: {brief(said)}: {said.words}" for said in judgement.accused]
    marks += [f"   also: {brief(said)}" for said in (*judgement.others, *judgement.second)]
    head = f"{'right' if judgement.right else 'WRONG'}  {judgement.shape.case.name}: {words}"
    return "\n".join([head, f"   expected: {expected(judgement)}", *marks])


def report(judgement: Judgement, seen: Seen) -> str:
    """All that was said of a case, for whoever wants to know why."""
    said = said_in(seen.events)
    began_ns = seen.began_ns
    lines = [
        f"{(each.at_ns - began_ns) / 1e9:6.1f} s  {brief(each)}  {each.words}" for each in said
    ]
    answer = [f"{brief(each)}  {each.words}" for each in inspected(seen.verdicts, seen.ended_ns)]
    sizes = " ".join(f"{size >> 20}" for _, size in seen.rss)
    runs = f"{sum(seen.runs.values()):,} runs in {seen.seconds:.0f} s"
    return "\n\n".join(
        [
            row(judgement),
            table([judgement]),
            f"{runs}: {_states(seen.points)}\nRSS of all, in MiB: {sizes}",
            "\n".join(["events:", *(lines or ["none"])]),
            "\n".join(["verdicts of inspect memory:", *(answer or ["none"])]),
            seen.inspected + "\n",
        ]
    )


def brief(said: Said) -> str:
    """A verdict in a few words, without those that it has for people."""
    where = "" if said.where == "task" else f" ({said.where})"
    parts = (said.state, said.kind, (said.task or "no task") + where, said.line, said.holder)
    return " ".join(filter(None, parts))


def _states(points: Iterable[Point]) -> str:
    """How many runs of each task ended in which state, as measured."""
    newest = {
        (point.start_ns, *sorted(point.attributes.items())): point
        for point in points
        if point.metric == c.MEASURED.name
    }
    counts: Counter[str] = Counter()
    for point in newest.values():
        of = point.attributes
        counts[f"{short(of.get(c.TASK_NAME))} {of.get(c.TASK_STATE)}"] += int(point.value)
    return ", ".join(f"{ended} {runs:,}" for ended, runs in counts.items())


def _cells(judgement: Judgement) -> tuple[str, ...]:
    case, main = judgement.shape.case, judgement.main
    if main is None:
        told = ("nothing", "-", "-", "-", "-")
    else:
        where = "" if main.where == "task" else f" ({main.where})"
        told = (
            main.state,
            _marked(f"{main.kind}{where}", judgement.kind_is_right or not judgement.leaks),
            main.task or "-",
            _line(judgement),
            _marked(main.holder or "-", judgement.holder_is_right or not case.holder),
        )
    accused = sorted({f"{said.task or said.where} {said.state}" for said in judgement.accused})
    return (
        case.name,
        case.leaks or "nobody",
        "right" if judgement.right else "WRONG",
        *told,
        _reached(judgement.suspected),
        _reached(judgement.leaking),
        ", ".join(accused[:2]) + (f" and {len(accused) - 2} more" if accused[2:] else ""),
    )


def _line(judgement: Judgement) -> str:
    main = judgement.main
    line = main.line if main is not None else ""
    if not judgement.shape.lines or judgement.line_is_right:
        return line or "-"
    rank = "none" if judgement.line_rank is None else f"rank {judgement.line_rank}"
    return f"! {line or '-'} (right one: {rank})"


def _reached(reached: Reached | None) -> str:
    return "-" if reached is None else f"{reached.runs:,} runs, {reached.seconds:.0f} s"


def _marked(text: str, right: bool) -> str:
    return text if right else f"! {text}"
