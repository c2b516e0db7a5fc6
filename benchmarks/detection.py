"""Who finds a leak: ten of the zoo, in a mix, and what each contender's own output puts first.

Each leak runs beside a healthy task, one that takes 8 MiB and gives it back and one that fails,
with each contender, which is configured as for its cost. Its report is read in the most favourable
way that is reasonable (`benchmarks.readings`). `opentelemetry-instrumentation-celery` alone is not
run: nothing that it sends has to do with memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.outputs import Outputs, PushReceiver, collected, in_a_line
from benchmarks.progress import Progress
from benchmarks.readings import READINGS, Reading
from demo.receiver import Receiver
from tests.redis_server import running_redis
from tests.truth.case import Shape
from tests.truth.worker_run import run_case
from tests.worker.harness import Broker
from tests.zoo.collection import rows
from tests.zoo.mixes import mixed

LEAKS = (
    "a list that only grows",
    "a cache on a method",
    "a class a run",
    "exceptions kept",
    "documents built by a library",
    "a quiet leak beside a loud task",
    "one run in a hundred",
    "native memory lost",
    "mappings kept",
    "files kept open",
)
SAYS_NOTHING = {
    "otel": "nothing that it sends has to do with memory",
    "bare": "collects nothing",
}
TOGETHER = 5
_PATIENCE = 1.25
"""Times as long as a case takes on a machine that is not busy."""


def measured(
    progress: Progress,
    contenders: Sequence[str] = tuple(READINGS),
    leaks: Sequence[str] = LEAKS,
    together: int = TOGETHER,
    longer: float = 1.0,
    minutes: float = float("inf"),
) -> dict[str, Any]:
    """What each contender says of each leak, as plain values; none is begun after ``minutes``."""
    until_s = time.monotonic() + minutes * 60
    found = {each.shape.case.name: each.shape for each in rows()}
    shapes = {name: _shape(found[name], longer) for name in leaks}
    chosen = [name for name in contenders if not CONTENDERS[name].missing()]
    # All contenders of a leak at about the same time: what else the machine does hits all.
    pairs = [(leak, name) for leak in leaks for name in chosen]
    with tempfile.TemporaryDirectory() as directory, running_redis(Path(directory)) as url:

        def read(pair: tuple[str, str]) -> dict[str, Any]:
            leak, name = pair
            if time.monotonic() > until_s:
                return asdict(Reading("", broken="not run, as time was up"))
            own = Path(directory) / f"{leaks.index(leak)}-{name}"
            try:
                reading = _read(shapes[leak], name, Broker.redis(url), own)
            except Exception as error:  # the others go on
                reading = Reading("", broken=in_a_line(error))
            progress.step(f"{leak}, {CONTENDERS[name].label}: {reading.text}")
            return asdict(reading)

        with ThreadPoolExecutor(together) as threads:
            readings = list(threads.map(read, pairs))
    told: dict[str, dict[str, Any]] = {leak: {} for leak in leaks}
    for (leak, name), reading in zip(pairs, readings, strict=True):
        told[leak][name] = reading
    return {
        "contenders": {name: CONTENDERS[name].label for name in contenders},
        "not_run": {name: CONTENDERS[name].missing() for name in contenders if name not in chosen},
        "says_nothing": dict(SAYS_NOTHING),
        "leaks": told,
        "tasks": {leak: shapes[leak].case.leaks for leak in leaks},
        "seconds": {leak: shapes[leak].case.seconds for leak in leaks},
        "together": together,
    }


def _shape(shape: Shape, longer: float) -> Shape:
    """In the mix, with the application that takes a contender."""
    found = mixed(shape)
    return replace(
        found,
        program=replace(found.program, app="benchmarks.detection_app"),
        case=replace(found.case, seconds=found.case.seconds * longer),
    )


def _read(shape: Shape, name: str, broker: Broker, directory: Path) -> Reading:
    """Runs the leak with a contender, and reads what it says."""
    directory.mkdir()
    contender = CONTENDERS[name]
    with ExitStack() as stack:
        otlp, push = stack.enter_context(Receiver()), stack.enter_context(PushReceiver())
        outputs = Outputs(directory, otlp, push)
        environ = {**outputs.environ(contender), "BENCH_CONTENDER": name}
        # One that takes too long for its tasks has no more time than the others.
        until_s = time.monotonic() + shape.case.seconds * _PATIENCE
        seen = run_case(
            shape, broker, directory, lambda _: time.monotonic() > until_s, environ=environ
        )
        time.sleep(1)
        # It sends to the receiver of its outputs, not to the one of the case.
        received = outputs.otlp.received
        seen = replace(seen, points=tuple(received.points), events=tuple(received.events))
        if lacks := contender.lacks(collected(contender, outputs)):
            return Reading("", broken=f"collected no {lacks}")
        return READINGS[name](shape, seen, outputs)


def table(told: Mapping[str, Any]) -> str:
    """For people: a line of each leak and contender."""
    lines = []
    for leak, readings in told["leaks"].items():
        lines.append(f"{leak} ({told['tasks'][leak]} leaks)")
        lines += [
            f"  {told['contenders'][name]:32} {Reading(**reading).text}"
            for name, reading in readings.items()
        ]
    lines += [
        f"not run: {told['contenders'][name]}: {why}" for name, why in told["not_run"].items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> None:
    """Runs all or some and prints them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    parser.add_argument("--contenders", nargs="+", default=list(READINGS), choices=list(READINGS))
    parser.add_argument("--leaks", nargs="+", default=list(LEAKS))
    parser.add_argument("--together", type=int, default=TOGETHER)
    parser.add_argument("--longer", type=float, default=1.0, help="times as long")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin none later")
    options = parser.parse_args(arguments)
    progress = Progress(len(options.contenders) * len(options.leaks))
    told = measured(
        *(progress, options.contenders, options.leaks),
        *(options.together, options.longer, options.minutes),
    )
    print(table(told))


if __name__ == "__main__":
    main(sys.argv[1:])
