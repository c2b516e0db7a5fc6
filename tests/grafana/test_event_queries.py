"""A query of events is described once and written in the language of each store.

tests/stack parses what is written for Loki and asks VictoriaLogs what is written for it.
"""

from __future__ import annotations

import pytest

from grafana import logql, logsql
from grafana.event_queries import Count, EventQuery, Events, OfTask
from grafana.stores import STORES, EventStore
from otel_celery_memory import conventions as c

LOST = (c.PROCESS_LOST.name,)
BOTH = (c.PRESSURE.name, c.PROCESS_LOST.name)
WRITTEN: list[tuple[EventQuery, str, str]] = [
    (
        Events(BOTH),
        '{service_instance_id=~"$instance"}'
        r' | event_name=~"celery\\.memory\\.pressure|celery\\.worker\\.process_lost"',
        '"event.name":in("celery.memory.pressure", "celery.worker.process_lost")'
        ' "service.instance.id":in($instance)',
    ),
    (
        Events(LOST, OfTask.CHOSEN),
        '{service_instance_id=~"$instance"} | event_name="celery.worker.process_lost"'
        ' | celery_task_name=~"$task"',
        '"event.name":in("celery.worker.process_lost") "service.instance.id":in($instance)'
        ' "celery.task.name":* "celery.task.name":in($task)',
    ),
    (
        Events(LOST, OfTask.CHOSEN_OR_NONE),
        '{service_instance_id=~"$instance"} | event_name="celery.worker.process_lost"'
        ' | celery_task_name=~"$task|"',
        '"event.name":in("celery.worker.process_lost") "service.instance.id":in($instance)'
        ' ("celery.task.name":in($task) or "celery.task.name":"")',
    ),
    (
        Count(Events(LOST, OfTask.SOME), c.EXIT_REASON),
        "sum by (celery_worker_exit_reason) (count_over_time("
        '{service_instance_id=~"$instance"} | event_name="celery.worker.process_lost"'
        ' | celery_task_name!="" [$__auto]))',
        '"event.name":in("celery.worker.process_lost") "service.instance.id":in($instance)'
        ' "celery.task.name":* | stats by ("celery.worker.exit.reason") count() events',
    ),
]


@pytest.mark.parametrize(("query", "in_logql", "in_logsql"), WRITTEN)
def test_a_query_is_written_in_both_languages(
    query: EventQuery, in_logql: str, in_logsql: str
) -> None:
    assert logql.written(query) == in_logql
    assert logsql.written(query) == in_logsql


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_a_target_has_the_query_type_of_its_data_source(
    store: EventStore,
) -> None:
    events = store.target(Events(LOST)).to_json()
    count = store.target(Count(Events(LOST), c.EXIT_REASON)).to_json()
    kinds = {"loki": ("range", "range"), "victorialogs": ("instant", "statsRange")}
    assert (events["queryType"], count["queryType"]) == kinds[store.name]
    assert count["legendFormat"] == f"{{{{{store.field(c.EXIT_REASON)}}}}}"
