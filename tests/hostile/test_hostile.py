"""A worker with us runs hostile tasks as one without us does."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.receiver import Receiver
from tests.hostile.comparison import differences
from tests.hostile.scenarios import EVERY_POOL, ORDINARY
from tests.hostile.tasks import HOSTILE
from tests.worker.harness import Broker

SHORT = [each for each in HOSTILE.values() if each.shares_worker]


@pytest.mark.parametrize("pool", EVERY_POOL)
def test_no_task_can_tell_that_it_is_measured(
    pool: str, broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    scenarios = [each for each in SHORT if pool in each.pools and not each.spoils]
    assert differences(scenarios, pool, broker, tmp_path, receiver.endpoint) == []


def test_no_task_that_spoils_its_process_can_tell_that_it_is_measured(
    broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    scenarios = [each for each in SHORT if each.spoils]
    assert differences(scenarios, "prefork", broker, tmp_path, receiver.endpoint) == []


@pytest.mark.parametrize("pool", ORDINARY)
def test_no_task_with_functions_of_tracemalloc_can_tell_that_it_is_measured(
    pool: str, broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    scenarios = [each for each in HOSTILE.values() if each.keeps_functions]
    assert differences(scenarios, pool, broker, tmp_path, receiver.endpoint) == []


@pytest.mark.parametrize("name", [each.name for each in HOSTILE.values() if each.ends_worker])
def test_no_task_that_ends_its_worker_can_tell_that_it_is_measured(
    name: str, broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    assert differences([HOSTILE[name]], "prefork", broker, tmp_path, receiver.endpoint) == []


@pytest.mark.long
def test_no_task_that_ends_its_process_can_tell_that_it_is_measured(
    broker: Broker, receiver: Receiver, tmp_path: Path
) -> None:
    scenarios = [each for each in HOSTILE.values() if each.long]
    assert differences(scenarios, "prefork", broker, tmp_path, receiver.endpoint) == []
