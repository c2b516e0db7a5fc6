"""What runs beside a case: nothing, healthy tasks and others, with recycling, or a second leak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tests.truth.case import BESIDE, Shape, marked_lines
from tests.zoo import beside

_MODULE = beside.__name__
_SECOND = "second_leak"
_MIXED = {**BESIDE, f"{_MODULE}.flaky": 4.0}
_RECYCLED_AFTER = 300


def alone(shape: Shape) -> Shape:
    """Its own tasks, and nothing else."""
    return _named(shape, "alone", {})


def mixed(shape: Shape) -> Shape:
    """Beside tasks that are healthy, that take 8 MiB and give it back, and that fail."""
    return _named(shape, "mixed", _MIXED)


def recycled(shape: Shape) -> Shape | None:
    """Mixed, in children that are recycled; ``None`` for a case with a pool of its own."""
    if shape.case.worker != ("--concurrency=2",):
        return None
    found = _named(shape, "recycled", _MIXED)
    options = (*shape.case.worker, f"--max-tasks-per-child={_RECYCLED_AFTER}")
    return replace(found, case=replace(found.case, worker=options))


def second_leak(shape: Shape) -> Shape:
    """Mixed, and one more task leaks. Of a healthy case that one is the answer."""
    found = _named(shape, "second leak", {**_MIXED, f"{_MODULE}.{_SECOND}": 4.0})
    if shape.case.leaks is not None:
        return replace(found, case=replace(found.case, also=(*shape.case.also, _SECOND)))
    case = replace(found.case, leaks=_SECOND, kinds=("python",), holder=("_second",))
    return replace(found, case=case, lines=marked_lines(beside))


MIXES: Mapping[str, Callable[[Shape], Shape | None]] = {
    "alone": alone,
    "mixed": mixed,
    "recycled": recycled,
    "second-leak": second_leak,
}


def _named(shape: Shape, mix: str, beside_it: Mapping[str, float]) -> Shape:
    imports = (_MODULE,) if any(task.startswith(_MODULE) for task in beside_it) else ()
    return replace(
        shape,
        case=replace(shape.case, name=f"{shape.case.name}, {mix}"),
        program=replace(shape.program, beside=beside_it, imports=imports),
    )
