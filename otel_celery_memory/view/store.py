"""All that is known of the workers that send here, within bounds. It does no input or output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from otel_celery_memory import conventions as c
from otel_celery_memory.view import timeline
from otel_celery_memory.view.otlp import LoggedEvent, Sample, Sender
from otel_celery_memory.view.remote import Told
from otel_celery_memory.view.streams import Room, Streams, slot_of
from otel_celery_memory.view.timeline import Item, Timeline
from otel_celery_memory.view.verdicts import Verdicts

WORKERS_MAX = 50
STREAMS_MAX = 40_000
TASKS_MAX = 2_000
SLOTS_MAX = 1_000
SITES_MAX = 100
"""Of one ranking."""
FILES_MAX = 1_000
CAPTURES_MAX = 20
"""Of a worker; the oldest is forgotten."""
_SAME_NAME_S = 60.0
"""For how long two senders of one name are told after the last sign of both."""
RECYCLED = ("max_tasks", "max_memory", "autoscale")
"""Reasons for which a child ends in good order while its worker runs on."""


@dataclass
class Worker:
    """One sender: its metrics, and its last ranking of sites."""

    first_seen_s: float
    last_seen_s: float
    streams: Streams = field(default_factory=Streams)
    sites: dict[int, LoggedEvent] = field(default_factory=dict)
    """By rank."""
    sites_ns: int = 0
    captures: dict[str, LoggedEvent] = field(default_factory=dict)
    """By file, the oldest first."""
    started_ns: int = 0
    two_until_s: float = 0.0
    interval_s: float = 0.0
    """The longest recent time between two exports."""
    ended: bool = False
    """Whether its last export says that its main process shut down."""

    def two_of_one_name(self, now_s: float) -> bool:
        """Whether two workers send under this name: their streams have different starts."""
        return now_s < self.two_until_s


class Store:
    """What came, by worker. ``version`` changes whenever something new can be seen."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.version = 0
        self.workers: dict[Sender, Worker] = {}
        self.timeline = Timeline()
        self.verdicts = Verdicts()
        self.left_out = 0
        """Samples of streams that had no room."""
        self.told: Mapping[str, Told] = {}
        """What workers that were asked said of themselves, by node name."""
        self._files: dict[str, None] = {}

    def take_metrics(self, sender: Sender, samples: Sequence[Sample], now_s: float) -> None:
        """Takes one export of metrics of a worker."""
        worker = self._worker(sender, now_s)
        if _is_a_new_one(worker, samples, now_s):
            self._begins_anew(sender, worker, now_s)
        known = bool(len(worker.streams))
        if known:
            gap_s = now_s - worker.last_seen_s
            worker.interval_s = max(gap_s, worker.interval_s * 0.8)
        worker.last_seen_s = now_s
        before = _exits(worker)
        room = self._room()
        worker.streams.take(samples, now_s, room)
        self.left_out += room.left_out
        self._note_start(worker, samples, now_s)
        if known:
            self._note_recycling(sender, before, _exits(worker), now_s)
        self.version += 1

    def take_events(self, sender: Sender, events: Iterable[LoggedEvent], now_s: float) -> None:
        """Takes log events of a worker."""
        worker = self._worker(sender, now_s)
        for event in events:
            self._note_file(str(event.attributes.get(c.CODE_FILE, "")))
            if event.name == c.ALLOCATION_SITE.name:
                _rank(worker, event)
            elif event.name == c.LEAK.name:
                verdict = self.verdicts.take(sender, event)
                subject = f"{verdict.task or verdict.where}: {verdict.state}"
                self.timeline.add(
                    Item(
                        event.time_ns / 1e9,
                        timeline.LEAK,
                        event.severity,
                        sender,
                        subject,
                        (event.body,),
                    )
                )
            else:
                if event.name == c.SNAPSHOT.name:
                    _note_capture(worker, event)
                self.timeline.take(sender, event)
        self.version += 1

    def take_answers(self, told: Mapping[str, Told]) -> None:
        """Takes what workers answered; who did not answer has told nothing."""
        if told != self.told:
            self.told = told
            self.version += 1

    def was_named(self, path: str) -> bool:
        """Whether a worker named this file in an event."""
        return path in self._files

    def _worker(self, sender: Sender, now_s: float) -> Worker:
        worker = self.workers.get(sender)
        if worker is None:
            if len(self.workers) >= WORKERS_MAX:
                oldest = min(self.workers, key=lambda each: self.workers[each].last_seen_s)
                del self.workers[oldest]
            worker = self.workers[sender] = Worker(now_s, now_s)
        return worker

    def _room(self) -> Room:
        streams = [worker.streams for worker in self.workers.values()]
        return Room(
            STREAMS_MAX - sum(map(len, streams)),
            TASKS_MAX - sum(len(each.growth) for each in streams),
            SLOTS_MAX - sum(len(each.memory) for each in streams),
        )

    def _begins_anew(self, sender: Sender, worker: Worker, now_s: float) -> None:
        """Another worker has the name now, as after a deployment: what was said of the one before
        is not true of this one."""
        worker.streams, worker.sites, worker.sites_ns = Streams(), {}, 0
        worker.ended = False
        self.verdicts.end(sender, now_s)
        text = f"{sender.node} was started again: its numbers begin anew"
        self.timeline.add(Item(now_s, timeline.WORKER, "INFO", sender, "again", (text,)))

    def _note_file(self, path: str) -> None:
        if path and (path in self._files or len(self._files) < FILES_MAX):
            self._files[path] = None

    def _note_start(self, worker: Worker, samples: Sequence[Sample], now_s: float) -> None:
        """Notes since when the main process's memory is followed: it tells reporters apart."""
        for sample in samples:
            if _is_of_main(sample):
                if sample.start_ns > worker.started_ns:
                    worker.started_ns = sample.start_ns
                elif sample.start_ns < worker.started_ns:
                    worker.two_until_s = now_s + _SAME_NAME_S
        worker.ended = any(
            sample.metric == c.PROCESS_EXITS.name
            and sample.attributes.get(c.SLOT) == "main"
            and sample.start_ns >= worker.started_ns
            for sample in samples
        )

    def _note_recycling(
        self, sender: Sender, before: dict[str, float], after: dict[str, float], now_s: float
    ) -> None:
        for reason in RECYCLED:
            more = int(after.get(reason, 0) - before.get(reason, 0))
            if more > 0:
                self.timeline.add(
                    Item(now_s, timeline.RECYCLED, "INFO", sender, reason, (), count=more)
                )


def _is_a_new_one(worker: Worker, samples: Sequence[Sample], now_s: float) -> bool:
    """Whether these are of a worker that was started after the one that is known.

    A reporter that is started again has a new start, too, and counts how often that was.
    """
    levels = {
        each.metric: each
        for each in samples
        if each.metric == c.REPORTER_RESTARTS.name or _is_of_main(each)
    }
    main, restarts = levels.get(c.MEMORY.name), levels.get(c.REPORTER_RESTARTS.name)
    if main is None or restarts is None or worker.two_of_one_name(now_s):
        return False
    return 0 < worker.started_ns < main.start_ns and not restarts.value


def _is_of_main(sample: Sample) -> bool:
    return sample.metric == c.MEMORY.name and sample.attributes.get(c.SLOT) == "main"


def _exits(worker: Worker) -> dict[str, float]:
    """Processes that ended, by reason; those of main are the worker's end."""
    exits: dict[str, float] = {}
    for stream in worker.streams.all(c.PROCESS_EXITS.name):
        if slot_of(stream) != "main":
            reason = str(stream.attributes.get(c.EXIT_REASON, ""))
            exits[reason] = exits.get(reason, 0) + stream.value
    return exits


def _rank(worker: Worker, event: LoggedEvent) -> None:
    """Adds a site to the last ranking, or begins the next one."""
    if event.time_ns < worker.sites_ns:
        return
    if event.time_ns > worker.sites_ns:
        worker.sites, worker.sites_ns = {}, event.time_ns
    rank = event.attributes.get(c.SITE_RANK, 0)
    if isinstance(rank, int) and len(worker.sites) < SITES_MAX:
        worker.sites[rank] = event


def _note_capture(worker: Worker, event: LoggedEvent) -> None:
    """Remembers a capture that was written as a file."""
    file = str(event.attributes.get(c.SNAPSHOT_FILE, ""))
    if file:
        worker.captures.pop(file, None)
        worker.captures[file] = event
        while len(worker.captures) > CAPTURES_MAX:
            del worker.captures[next(iter(worker.captures))]
