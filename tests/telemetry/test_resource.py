"""Who sends: the user's resource, with the worker's node name as the instance."""

from __future__ import annotations

import os
import socket

import pytest

from otel_celery_memory.telemetry.providers import worker_resource

RESOURCES = [
    ({}, {"service.name": "unknown_service", "service.instance.id": "celery@box"}),
    (
        {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.name=x,team=a"},
        {"service.name": "shop", "service.instance.id": "celery@box", "team": "a"},
    ),
    (
        {"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=mine , host.name=pod-7"},
        {"service.name": "unknown_service", "service.instance.id": "mine", "host.name": "pod-7"},
    ),
]


@pytest.mark.parametrize(("variables", "expected"), RESOURCES)
def test_the_resource_is_the_user_s_and_the_instance_the_worker_unless_he_names_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    attributes = dict(worker_resource("celery@box", os.environ).attributes)
    for name in [name for name in attributes if name.startswith("telemetry.")]:
        del attributes[name]
    # The SDK adds the interpreter's name to a service that has none.
    attributes["service.name"] = str(attributes["service.name"]).partition(":")[0]
    assert attributes == {"host.name": socket.gethostname(), **expected}
