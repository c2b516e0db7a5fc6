"""What `make zoo` prints of a judgement."""

from __future__ import annotations

from dataclasses import replace

from demo.receiver import Point
from otel_celery_memory import conventions as c
from tests.truth.case import Case, Shape
from tests.truth.conclusions import Seen
from tests.zoo.judgement import Judgement, judge
from tests.zoo.said import Said
from tests.zoo.table import expected, report, row, table

SECOND_NS = 10**9
SAID = Said(
    *(10 * SECOND_NS, "suspected", "python", "task", "feed", "feed.py:7", "shop._seen"),
    words="shop.feed may leak 10.0 KiB a run.",
)
LEAK = Shape(Case("a list", "feed", {"feed": 10}, holder=("_seen",)), "shop", ("feed.py:7",))
HEALTHY = Shape(Case("a cache", None, {"feed": 10}, fills=("feed",)), "shop", ())


def judged(shape: Shape, *said: Said, ranking: tuple[str, ...] = ()) -> Judgement:
    return judge(shape, said, 0, lambda at_ns: at_ns // SECOND_NS * 20, ranking)


def cells(judgement: Judgement) -> list[str]:
    head, line = table([judgement]).splitlines()
    starts = [head.index(name) for name in ("case", "expected", "state", "kind", "task", "line")]
    starts += [head.index(name) for name in ("holder", "to suspected", "to leaking", "accused")]
    ends = [*starts[1:], None]
    return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def test_what_is_right_is_said_as_it_is_with_how_long_it_took() -> None:
    assert cells(judged(LEAK, SAID)) == [
        *("a list", "feed      right", "suspected", "python", "feed", "feed.py:7", "shop._seen"),
        *("200 runs, 10 s", "-", ""),
    ]


def test_what_is_wrong_is_marked_and_the_right_line_has_its_rank() -> None:
    wrong = replace(SAID, kind="native", line="lib.py:3", holder="shop._cache")
    found = cells(judged(LEAK, wrong, ranking=("lib.py:3", "feed.py:7")))
    assert found[3] == "! native"
    assert found[5:7] == ["! lib.py:3 (right one: rank 2)", "! shop._cache"]


def test_whoever_is_accused_is_named() -> None:
    found = cells(judged(LEAK, replace(SAID, task="mail", state="leaking")))
    assert found[2:4] == ["nothing", "-"]
    assert found[9] == "mail leaking"


def test_a_row_has_the_words_and_what_is_expected() -> None:
    assert row(judged(LEAK, SAID)).splitlines() == [
        "right  a list: shop.feed may leak 10.0 KiB a run.",
        "   expected: feed python in task feed.py:7 or _seen",
    ]
    assert row(judged(HEALTHY)).splitlines()[0] == "right  a cache: nothing was said"
    assert expected(judged(HEALTHY)) == "nobody, feed may be suspected"


def test_a_report_counts_runs_by_task_and_state_over_all_that_measured_them() -> None:
    def measured(runs: int, state: str, exclusive: bool) -> Point:
        of = {c.TASK_NAME: "shop.feed", c.TASK_STATE: state, c.EXCLUSIVE: exclusive}
        return Point(c.MEASURED.name, "{task}", {}, of, 0, 5, runs)

    points = (
        measured(1, "SUCCESS", True),
        measured(4, "SUCCESS", True),
        measured(2, "SUCCESS", False),
        measured(3, "FAILURE", True),
    )
    seen = Seen(
        "the answer", points, (), {"shop.feed": 9}, 60.0, 0, 60 * SECOND_NS, ((0, 5 << 20),)
    )
    text = report(judged(LEAK, SAID), seen)
    assert "9 runs in 60 s: feed SUCCESS 6, feed FAILURE 3" in text
    assert "RSS of all, in MiB: 5" in text
    assert text.endswith("the answer\n")
